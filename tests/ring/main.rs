//! The program as users run it: real processes, real sockets, real signals. `make ring` and CI meet what is tested here.
#![allow(missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod backup;
mod changing;
mod crowds;
mod failing;
mod forming;
mod hostile;
mod keyed;
mod load;
mod proxied;
mod recovering;
mod refusing;
mod serving;
mod stopping;
mod storing;
mod surviving;
mod tokens;
mod watching;
