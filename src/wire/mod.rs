//! The wire: protobuf to domain messages and back, frames, the handshake.
//!
//! Generated types never leave this folder. Whatever a peer sends ends here in a valid domain value or in a
//! [`WireError`]; no size that it declares is believed before the bytes are there. No I/O.

mod copies;
mod decode;
mod encode;
pub mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod handshake;
#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod pb;
#[rustfmt::skip]
mod shapes;
mod survey;
mod watch;
mod weigh;

pub use decode::{WireError, decode, decode_with};
pub use encode::encode;
pub use frame::{FrameDecoder, FrameTooLarge, Packet};
pub use handshake::{Hello, Local, Refusal, RefusalCode, judge};
