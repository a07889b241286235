//! Running out of descriptors, alone in its process: it lowers the limit for all of it.
#![allow(missing_docs)]

mod common;

use std::net::TcpStream;
use std::os::fd::AsRawFd;

use common::{Client, config, response, serve, wait_until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn limit_to(descriptors: Option<u64>) {
    setrlimit(Resource::Nofile, Rlimit { current: descriptors, maximum: getrlimit(Resource::Nofile).maximum }).unwrap();
}

fn closed(client: &Client) -> bool {
    client.stream.set_nonblocking(true).unwrap();
    matches!(client.stream.peek(&mut [0; 1]), Ok(0))
}

#[test]
fn running_out_of_descriptors_pauses_accepting_and_neither_ends_it_nor_costs_private_connections() {
    let plenty = getrlimit(Resource::Nofile).current;
    let served = serve(config());
    // Four requests in flight at once, none answered before all are: a private connection each, so that all of them are
    // open and none takes a descriptor later. The clients stay, so that none is given back either.
    let mut idle: Vec<Client> = (0..4).map(|_| served.client()).collect();
    for client in &mut idle {
        client.send("GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    let held: Vec<_> = (0..4).map(|_| served.next_held()).collect();
    for ticket in held {
        served.responder.answer(ticket, response(200, "held"));
    }
    for client in &mut idle {
        assert_eq!(client.answer().text(), "held");
    }

    // A new descriptor takes the lowest free number, so a limit just above it leaves room for one: the client's own end.
    // Numbers above the limit, inherited ones among them, stay open and change nothing.
    let lowest_free = u64::try_from(std::fs::File::open("/dev/null").unwrap().as_raw_fd()).unwrap();
    limit_to(Some(lowest_free + 1));
    let waiting = TcpStream::connect(served.addr).unwrap();
    assert!(TcpStream::connect(served.addr).is_err(), "the limit is reached");

    // The gate gives the quietest connection up for the newcomer, even while the limit stays.
    let mut waiting = Client::over(waiting);
    assert_eq!(waiting.get("/waiting").text(), "GET /waiting ");
    wait_until("one has given way", || idle.iter().filter(|client| closed(client)).count() == 1);
    limit_to(plenty);
    for _ in 0..20 {
        served.still_serves();
    }
}
