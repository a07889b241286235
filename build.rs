//! Leaves the tables for unwinding out of the released program: it aborts on a panic (`Cargo.toml`), so nothing ever reads
//! them, and they are a tenth of it. With `CHORDKV_UNWIND_TABLES=1` in the environment they stay.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=scripts/no-unwinding.ld");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|of| of == value);
    println!("cargo::rerun-if-env-changed=CHORDKV_UNWIND_TABLES");
    // For whoever wants backtraces of it, or has a linker that does not understand the script (gold).
    let is_wanted = env::var_os("CHORDKV_UNWIND_TABLES").is_some();
    if !is_wanted && is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu")
    {
        let root = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        let script = Path::new(&root).join("scripts/no-unwinding.ld");
        println!("cargo::rustc-link-arg-bin=chordkv=-Wl,-T,{}", script.display());
        println!("cargo::rustc-link-arg-bin=chordkv=-Wl,--no-eh-frame-hdr");
    }
}
