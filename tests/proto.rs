//! The committed `src/wire/pb.rs` is what `proto/peer.proto` generates. `make proto` (this test with `CHORDKV_PROTO=write`)
//! writes it; no protoc is needed.

use std::fs;
use std::path::Path;

#[test]
fn the_generated_file_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files =
        protox::compile([root.join("proto/peer.proto")], [root.join("proto")]).expect("the proto file compiles");
    let out = tempfile::tempdir().expect("a temporary directory");
    prost_build::Config::new().out_dir(out.path()).compile_fds(files).expect("code is generated");
    let generated = fs::read_to_string(out.path().join("chordkv.peer.v1.rs")).expect("the generated file");
    let committed = root.join("src/wire/pb.rs");
    if std::env::var("CHORDKV_PROTO").as_deref() == Ok("write") {
        fs::write(&committed, &generated).expect("pb.rs is written");
    }
    let present = fs::read_to_string(&committed).unwrap_or_default();
    assert!(present == generated, "src/wire/pb.rs does not match proto/peer.proto: run `make proto`");
}
