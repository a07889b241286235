//! The HTTP front over real connections: each hazard of `tiny_http` that the gate is there for, and plain service.
#![allow(missing_docs)]

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::{Client, MAX_VALUE, PATIENCE, config, response, serve, serve_default};

const SHORT: Duration = Duration::from_millis(200);

// Plain service.

#[test]
fn a_request_reaches_the_application_and_its_answer_the_client_over_one_connection_many_times() {
    let served = serve_default();
    let mut client = served.client();
    for number in 0..50 {
        let answer = client.get(&format!("/k/{number}?a=b"));
        assert_eq!((answer.status, answer.text()), (200, format!("GET /k/{number}?a=b ")));
        assert!(!answer.closes() && answer.field("date").is_some() && answer.field("server").is_none());
    }
}

#[test]
fn only_headers_on_the_allow_list_reach_the_application() {
    let served = serve_default();
    served.ask(
        "PUT /k HTTP/1.1\r\nHost: h\r\nX-Gate-Probe: 1\r\nX-Evil: 1\r\nIf-Match: \"1\"\r\nContent-Length: 2\r\n\r\nab",
    );
    let seen = served.seen.lock().unwrap();
    let expected = [("host", "h"), ("if-match", "\"1\"")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(seen[0].headers, expected);
    assert_eq!((seen[0].method.as_str(), seen[0].target.as_str(), seen[0].body.as_slice()), ("PUT", "/k", &b"ab"[..]));
}

#[test]
fn a_thousand_pipelined_gets_are_answered_in_order() {
    let served = serve_default();
    let client = served.client();
    let mut writer = client.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        for number in 0..1000 {
            write!(writer, "GET /{number} HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        }
    });
    let mut client = client;
    for number in 0..1000 {
        assert_eq!(client.answer().text(), format!("GET /{number} "));
    }
    sending.join().unwrap();
}

#[test]
fn requests_that_arrive_byte_by_byte_are_understood() {
    let served = serve_default();
    let mut client = served.client();
    for byte in b"\r\nPUT /k HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc" {
        client.send([*byte]);
    }
    assert_eq!(client.answer().text(), "PUT /k abc");
}

#[test]
fn head_is_answered_with_the_length_and_no_body() {
    let served = serve_default();
    let mut client = served.client();
    client.send("HEAD /big/100000 HTTP/1.1\r\nHost: h\r\n\r\n");
    let answer = client.answer_to("HEAD");
    assert_eq!((answer.status, answer.field("content-length").as_deref()), (200, Some("100000")));
    assert_eq!(client.get("/after").text(), "GET /after ");
}

#[test]
fn the_application_may_state_the_length_of_a_body_that_head_does_not_carry() {
    let served = serve_default();
    let mut client = served.client();
    client.send("HEAD /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut head = response(200, "");
    head.body_len = 123;
    served.responder.answer(served.next_held(), head);
    assert_eq!(client.answer_to("HEAD").field("content-length").as_deref(), Some("123"));
    assert_eq!(client.get("/after").text(), "GET /after ");
}

#[test]
fn answers_204_and_304_have_no_body_and_leave_the_connection_usable() {
    let served = serve_default();
    let mut client = served.client();
    for status in [204, 304, 200, 404] {
        assert_eq!(client.get(&format!("/status/{status}")).status, status);
    }
}

#[test]
fn an_application_without_a_valid_status_gives_500() {
    let served = serve_default();
    let mut client = served.client();
    client.get("/status/100").is_problem(500, "bad_answer");
    client.get("/status/999").is_problem(500, "bad_answer");
    assert_eq!(client.get("/after").status, 200);
}

#[test]
fn http_1_0_and_connection_close_are_answered_and_closed() {
    let served = serve_default();
    for request in ["GET /k HTTP/1.0\r\n\r\n", "GET /k HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"] {
        let mut client = served.client();
        client.send(request);
        let answer = client.answer();
        assert_eq!((answer.status, answer.text().as_str(), answer.closes()), (200, "GET /k ", true));
        client.wait_closed();
    }
}

#[test]
fn a_client_that_ends_sending_after_its_request_still_gets_the_answer() {
    let served = serve_default();
    let mut client = served.client();
    client.send("GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    client.end_sending();
    let ticket = served.next_held();
    served.responder.answer(ticket, response(200, "late"));
    assert_eq!(client.answer().text(), "late");
    client.wait_closed();
}

#[test]
fn answers_of_a_mebibyte_and_more_arrive_whole() {
    let served = serve_default();
    let mut client = served.client();
    for size in [0, 1, 32 * 1024, 1024 * 1024, 5_000_000] {
        let answer = client.get(&format!("/big/{size}"));
        assert_eq!(answer.body.len(), size);
        assert!(answer.field("transfer-encoding").is_none());
    }
}

// Bodies.

#[test]
fn a_body_exactly_at_the_limit_passes_and_one_byte_more_is_413_before_it_is_read() {
    let served = serve_default();
    let mut client = served.client();
    client.send(format!("PUT /k HTTP/1.1\r\nHost: h\r\nContent-Length: {MAX_VALUE}\r\n\r\n"));
    client.send(vec![b'a'; MAX_VALUE]);
    assert_eq!(client.answer().body.len(), MAX_VALUE + "PUT /k ".len());
    client.send(format!("PUT /k HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", MAX_VALUE + 1));
    let answer = client.answer();
    answer.is_problem(413, "body_too_large");
    assert!(answer.text().contains(" 1048576 bytes"), "the limit is named: {}", answer.text());
    assert!(answer.closes());
    client.end_sending();
    client.wait_closed();
}

#[test]
fn a_declared_length_of_two_to_the_40_is_413_and_harms_nobody() {
    let served = serve_default();
    served.ask("PUT /k HTTP/1.1\r\nHost: h\r\nContent-Length: 1099511627776\r\n\r\n").is_problem(413, "body_too_large");
    served.still_serves();
}

#[test]
fn a_client_that_sends_an_oversized_body_all_the_same_can_read_the_413() {
    let served = serve_default();
    let mut client = served.client();
    client.send(format!("PUT /k HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", 3 * MAX_VALUE));
    client.send(vec![b'a'; 3 * MAX_VALUE]);
    client.answer().is_problem(413, "body_too_large");
}

#[test]
fn an_unread_body_is_drained_only_up_to_a_bound() {
    let mut config = config();
    config.linger_timeout = PATIENCE;
    let served = serve(config);
    let mut client = served.client();
    client.send("PUT /k HTTP/1.1\r\nHost: h\r\nContent-Length: 1099511627776\r\n\r\n");
    let piece = vec![b'a'; 64 * 1024];
    let end = Instant::now() + PATIENCE;
    while client.stream.write_all(&piece).is_ok() {
        assert!(Instant::now() < end, "the body is read without end");
    }
    served.still_serves();
}

#[test]
fn a_chunked_upload_reaches_the_application_as_one_body() {
    let served = serve_default();
    let mut client = served.client();
    client.send("PUT /k HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nWiki\r\n5\r\npedia\r\n0\r\nT: z\r\n\r\n");
    assert_eq!(client.answer().text(), "PUT /k Wikipedia");
    let body = format!("{:x}\r\n{}\r\n", 1000, "b".repeat(1000)).repeat(1000) + "0\r\n\r\n";
    client.send("PUT /k HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(body + "GET /next HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.answer().body.len(), 1_000_000 + "PUT /k ".len());
    assert_eq!(client.answer().text(), "GET /next ");
}

#[test]
fn a_chunked_upload_over_the_limit_is_413_and_a_crooked_one_400() {
    let served = serve_default();
    let head = "PUT /k HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    served.ask(&format!("{head}100001\r\n")).is_problem(413, "body_too_large");
    served.ask(&format!("{head}4\nWiki")).is_problem(400, "bad_chunk");
    assert!(served.seen.lock().unwrap().is_empty());
}

#[test]
fn expect_continue_is_answered_by_the_gate_after_the_size_check() {
    let served = serve_default();
    let mut client = served.client();
    client.send("PUT /k HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.answer().status, 100);
    client.send("hello");
    assert_eq!(client.answer().text(), "PUT /k hello");
    client.send("PUT /k HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n");
    client.answer().is_problem(413, "body_too_large");
}

// Crooked requests.

#[test]
fn http_2_is_505_and_hangs_nothing() {
    let served = serve_default();
    for request in ["GET / HTTP/2.0\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/2.0\r\nHost: h\r\n\r\n"] {
        for _ in 0..10 {
            served.ask(request).is_problem(505, "bad_version");
        }
    }
    served.still_serves();
}

#[test]
fn every_refused_request_is_answered_with_its_problem_and_closed() {
    let served = serve_default();
    for (status, code, request) in [
        (400, "bad_line_end", "GET / HTTP/1.1\nHost: h\n\n".to_owned()),
        (400, "bad_header", "GET / HTTP/1.1\r\nHost: h\r\nAccept: a\r\n b\r\n\r\n".to_owned()),
        (400, "bad_host", "GET / HTTP/1.1\r\n\r\n".to_owned()),
        (
            400,
            "bad_content_length",
            "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(),
        ),
        (
            400,
            "ambiguous_length",
            "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        ),
        (501, "bad_transfer_coding", "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n".to_owned()),
        (411, "length_required", "PUT / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned()),
        (414, "target_too_long", format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(9000))),
        (414, "target_too_long", format!("GET /{}", "a".repeat(40_000))),
        (431, "head_too_large", format!("GET / HTTP/1.1\r\nHost: h\r\n{}", "X: y\r\n".repeat(10_000))),
        (417, "bad_expectation", "PUT / HTTP/1.1\r\nHost: h\r\nExpect: x\r\nContent-Length: 1\r\n\r\n".to_owned()),
    ] {
        let mut client = served.client();
        client.send(&request);
        let answer = client.answer();
        answer.is_problem(status, code);
        assert!(answer.closes());
        client.end_sending();
        client.wait_closed();
    }
    served.still_serves();
    assert_eq!(served.seen.lock().unwrap().len(), 1);
}

#[test]
fn what_follows_a_refused_request_is_never_taken_for_a_request() {
    let served = serve_default();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: x\r\nContent-Length: 0",
        "Content-Length: 0\r\nContent-Length: 37",
        "Content-Length: 0, 37",
        "Transfer-Encoding : chunked",
    ] {
        let answer = served.ask(&format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n0\r\n\r\n{smuggled}"));
        assert_eq!(answer.status, 400, "{fields}");
    }
    served.still_serves();
    assert!(served.seen.lock().unwrap().iter().all(|request| request.target == "/alive"));
}

#[test]
fn an_answer_cannot_be_split_by_what_the_application_puts_into_a_header() {
    let served = serve_default();
    let mut client = served.client();
    let answer = client.get("/split");
    assert_eq!((answer.status, answer.text().as_str()), (200, "fine"));
    assert_eq!(answer.field("x-good").as_deref(), Some("kept"));
    for name in ["x-bad", "set-cookie", "connection", "transfer-encoding"] {
        assert_eq!(answer.field(name), None);
    }
    assert_eq!(client.get("/after").text(), "GET /after ");
}

// Slow, silent and vanishing clients.

#[test]
fn a_slow_head_is_408_in_total_time_however_steadily_it_drips() {
    let mut config = config();
    config.head_timeout = SHORT;
    let served = serve(config);
    let mut client = served.client();
    let mut reader = client.twin();
    client.send("GET / HTTP/1.1\r\n");
    let dripping = std::thread::spawn(move || {
        while client.stream.write_all(b"A: b\r\n").is_ok() {
            std::thread::park_timeout(Duration::from_millis(10));
        }
    });
    reader.answer().is_problem(408, "slow_head");
    drop(reader);
    dripping.join().unwrap();
    served.still_serves();
}

#[test]
fn a_slow_body_is_408() {
    let mut config = config();
    config.body_timeout = SHORT;
    let served = serve(config);
    let mut client = served.client();
    client.send("PUT /k HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
    client.answer().is_problem(408, "slow_body");
    assert!(served.seen.lock().unwrap().is_empty());
}

#[test]
fn silent_and_idle_connections_are_closed_without_a_word() {
    let mut config = config();
    (config.head_timeout, config.idle_timeout) = (SHORT, SHORT);
    let served = serve(config);
    served.client().wait_closed();
    let mut client = served.client();
    assert_eq!(client.get("/k").status, 200);
    client.wait_closed();
}

#[test]
fn a_burst_of_silent_connections_over_the_cap_costs_only_the_quietest_and_service_goes_on() {
    let mut config = config();
    config.connections_max = 20;
    let served = serve(config);
    let mut busy = served.client();
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(served.client());
        // One that speaks is never the quietest.
        assert_eq!(busy.get("/busy").text(), "GET /busy ");
    }
    for client in &mut silent[..80] {
        client.wait_closed();
    }
    let mut last = silent.pop().unwrap();
    assert_eq!(last.get("/last").text(), "GET /last ");
    served.still_serves();
}

#[test]
fn connections_that_wait_for_an_answer_are_not_evicted() {
    let mut config = config();
    config.connections_max = 2;
    let served = serve(config);
    let mut waiting = [served.client(), served.client()];
    let mut tickets = Vec::new();
    for client in &mut waiting {
        client.send("GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
        tickets.push(served.next_held());
    }
    served.client().wait_closed();
    for (client, ticket) in waiting.iter_mut().zip(tickets) {
        served.responder.answer(ticket, response(200, "held"));
        assert_eq!(client.answer().text(), "held");
    }
    served.still_serves();
}

#[test]
fn clients_that_vanish_in_the_middle_of_anything_cost_nothing_lasting() {
    let served = serve_default();
    for _ in 0..3 * 4 {
        served.client().send("GET / HTT");
        served.client().send("PUT /k HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nabc");
        let mut client = served.client();
        client.send("GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
        let ticket = served.next_held();
        drop(client);
        served.responder.answer(ticket, response(200, vec![b'x'; 300_000]));
        let mut client = served.client();
        client.send("GET /big/8000000 HTTP/1.1\r\nHost: h\r\n\r\n");
        client.stream.read_exact(&mut [0; 1000]).unwrap();
    }
    served.still_serves();
}

#[test]
fn a_client_that_does_not_read_its_answer_is_cut_off_and_stops_nobody_else() {
    let mut config = config();
    (config.write_timeout, config.memory_max) = (5 * SHORT, 50_000_000);
    let served = serve(config);
    let mut stuck: Vec<Client> = (0..4).map(|_| served.client()).collect();
    for client in &mut stuck {
        client.send("GET /big/10000000 HTTP/1.1\r\nHost: h\r\n\r\n");
        served.still_serves();
    }
    // What they were to get no longer counts once they are cut off.
    common::wait_until("the budget is given back", || served.client().get("/big/45000000").status == 200);
    for client in &mut stuck {
        let mut rest = Vec::new();
        let _ = client.stream.read_to_end(&mut rest);
        assert!(rest.len() < 10_000_000, "the answer was not cut off");
    }
}

// Overload and lost answers.

#[test]
fn a_request_without_an_answer_is_504_and_its_place_is_free_again() {
    let mut config = config();
    config.answer_timeout = SHORT;
    let served = serve(config);
    let mut client = served.client();
    for _ in 0..2 * 4 {
        client.send("PUT /hold HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
        let answer = client.answer();
        answer.is_problem(504, "outcome_unknown");
        assert!(answer.text().contains("may have happened"));
    }
    client.get("/hold").is_problem(504, "deadline_passed");
    assert_eq!(client.get("/after").text(), "GET /after ");
    // The answers that come now are for nobody.
    for ticket in served.held.try_iter() {
        served.responder.answer(ticket, response(200, "late"));
    }
    assert_eq!(client.get("/after").text(), "GET /after ");
}

#[test]
fn requests_over_the_queue_are_503_with_retry_after_and_those_in_it_are_served() {
    let mut config = config();
    (config.workers, config.queue_max) = (2, 3);
    let served = serve(config);
    let mut clients: Vec<Client> = (0..6).map(|_| served.client()).collect();
    let mut tickets = Vec::new();
    for client in &mut clients[..2] {
        client.send("GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
        tickets.push(served.next_held());
    }
    for client in &mut clients[2..] {
        client.send("GET /queued HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    // Three of the four wait; which one is over is a matter of the order in which they are read.
    let refused =
        clients[2..].iter_mut().map(|client| client.stream.set_nonblocking(true)).filter(Result::is_err).count();
    assert_eq!(refused, 0);
    common::wait_until("one request is refused", || {
        clients[2..].iter().any(|client| client.stream.peek(&mut [0; 1]).is_ok())
    });
    for ticket in tickets {
        served.responder.answer(ticket, response(200, "held"));
    }
    let mut statuses = Vec::new();
    for client in &mut clients {
        client.stream.set_nonblocking(false).unwrap();
        let answer = client.answer();
        if answer.status == 503 {
            answer.is_problem(503, "http_queue_full");
            assert_eq!(answer.field("retry-after").as_deref(), Some("1"));
        }
        statuses.push(answer.status);
        assert_eq!(client.get("/after").status, 200);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 503]);
}

#[test]
fn bodies_over_the_common_budget_are_503_and_the_budget_is_given_back() {
    let mut config = config();
    config.memory_max = 2 * MAX_VALUE;
    let served = serve(config);
    let half_sent = |client: &mut Client| {
        client.send(format!("PUT /k HTTP/1.1\r\nHost: h\r\nContent-Length: {MAX_VALUE}\r\n\r\n"));
        let _ = client.stream.write_all(&vec![b'a'; MAX_VALUE - 1]);
    };
    let mut clients: Vec<Client> = (0..5).map(|_| served.client()).collect();
    clients.iter_mut().for_each(half_sent);
    clients[0].stream.set_nonblocking(true).unwrap();
    for client in &clients {
        client.stream.set_nonblocking(true).unwrap();
    }
    common::wait_until("three uploads are refused", || {
        clients.iter().filter(|client| client.stream.peek(&mut [0; 1]).is_ok()).count() >= 3
    });
    for client in &mut clients {
        if client.stream.peek(&mut [0; 1]).is_ok() {
            client.stream.set_nonblocking(false).unwrap();
            client.answer().is_problem(503, "http_memory_full");
        }
    }
    drop(clients);
    common::wait_until("the budget is given back", || {
        let mut client = served.client();
        half_sent(&mut client);
        client.stream.write_all(b"a").is_ok() && client.answer().status == 200
    });
}

#[test]
fn an_answer_over_the_budget_is_503_for_a_read_and_unknown_for_a_write() {
    let mut config = config();
    config.memory_max = 100_000;
    let served = serve(config);
    let mut client = served.client();
    client.get("/big/200000").is_problem(503, "http_memory_full");
    client.send("PUT /big/200000 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    client.answer().is_problem(504, "outcome_unknown");
    assert_eq!(client.get("/big/50000").body.len(), 50_000);
}

#[test]
fn a_taken_port_is_an_error_before_anything_is_started() {
    let served = serve_default();
    let mut config = config();
    config.listen = served.addr;
    assert!(chordkv::driver::http::HttpFront::bind(config).is_err());
}

// Requests that are put off.

#[test]
fn requests_that_are_put_off_hold_no_private_connection_and_come_again_when_they_are_called() {
    let served = serve_default();
    let mut waiting: Vec<Client> = (0..100).map(|_| served.client()).collect();
    for (number, client) in waiting.iter_mut().enumerate() {
        client.send(format!("GET /park/{number} HTTP/1.1\r\nHost: h\r\nX-Gate-Parked: 7\r\n\r\n"));
    }
    common::wait_until("all are put off", || served.seen.lock().unwrap().len() == 100);
    served.still_serves();
    let handle = served.handle.as_ref().unwrap();
    (0..100).for_each(|number| handle.resume(number));
    for (number, client) in waiting.iter_mut().enumerate() {
        assert_eq!(client.answer().text(), format!("{number} comes again as {number}"));
        assert_eq!(client.get("/k").text(), "GET /k ", "the connection goes on");
    }
    // Called before it was put off.
    handle.resume(200);
    assert_eq!(served.client().get("/park/200").text(), "200 comes again as 200");
}

#[test]
fn a_body_that_nobody_asked_for_is_not_in_the_way_when_a_request_comes_again() {
    let served = serve_default();
    let body = format!("\r\nx-gate-parked: 9\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n{}", "x".repeat(2_000));
    let mut client = served.client();
    client.send(format!("GET /park/1 HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    common::wait_until("it is put off", || served.seen.lock().unwrap().len() == 1);
    served.handle.as_ref().unwrap().resume(1);
    assert_eq!(client.answer().text(), "1 comes again as 1");
    assert_eq!(client.get("/k").text(), "GET /k ");
    served.still_serves();
    assert!(served.seen.lock().unwrap().iter().all(|request| request.target != "/smuggled"));
}

#[test]
fn when_the_gate_stops_what_was_put_off_is_told_so() {
    let mut served = serve_default();
    let mut client = served.client();
    client.send("GET /park/1 HTTP/1.1\r\nHost: h\r\n\r\n");
    common::wait_until("it is put off", || served.seen.lock().unwrap().len() == 1);
    let handle = served.handle.take().unwrap();
    handle.begin_stop(PATIENCE);
    client.answer().is_problem(503, "stopping");
    handle.stop(PATIENCE);
}

#[test]
fn no_more_than_half_of_all_connections_may_wait_so() {
    let mut config = config();
    config.connections_max = 8;
    let served = serve(config);
    let mut waiting: Vec<Client> = (0..4).map(|_| served.client()).collect();
    for (number, client) in waiting.iter_mut().enumerate() {
        client.send(format!("GET /park/{number} HTTP/1.1\r\nHost: h\r\n\r\n"));
        common::wait_until("it is put off", || served.seen.lock().unwrap().len() == number + 1);
    }
    served.client().get("/park/9").is_problem(503, "too_many_waiting");
    // Whoever goes makes room.
    drop(waiting.pop());
    common::wait_until("there is room", || {
        let mut client = served.client();
        served.handle.as_ref().unwrap().resume(9);
        client.get("/park/9").status == 200
    });
}
