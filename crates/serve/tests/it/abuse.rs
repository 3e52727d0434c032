//! Clients that are slow, wrong, or mean harm.

use std::time::{Duration, Instant};

use halfstep_serve::limits::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{ONE, get, post, reply, send, serve};

fn quick() -> Limits {
    Limits {
        header_read: Duration::from_millis(400),
        body_read: Duration::from_millis(400),
        answer_write: Duration::from_millis(400),
        request: Duration::from_millis(400),
        ..Limits::default()
    }
}

/// Reads until the server closes the connection.
async fn closed(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut all)).await;
    // A connection that is reset is closed as well.
    let _ = read.expect("the server keeps the connection open");
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn slow_headers_and_idle_connections_are_closed() {
    let served = serve(quick(), None, None).await;
    let begun = Instant::now();
    for bytes in ["", "P", "PRI * HTTP/2.0\r\n", "GET /v2 HT", "GET /v2 HTTP/1.1\r\nhost: x\r\nx: y"] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let text = closed(&mut stream).await;
        assert!(text.is_empty() || text.contains(" 408 "), "{bytes}: {text}");
    }
    // HTTP/2 that begins and asks for nothing.
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    closed(&mut stream).await;
    // A byte at a time for longer than a header may take.
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let mut sent = 0;
    while sent < 100 && stream.write_all(b"P").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(50)).await;
        sent += 1;
    }
    assert!(sent < 100, "a header that never ends is read on");
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(get(served.address, "/v2").await.status, 200);
}

#[tokio::test]
async fn slow_bodies_are_given_up() {
    let served = serve(quick(), None, None).await;
    let begun = "POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\n";
    for lines in ["content-length: 100\r\n\r\n{", "transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(format!("{begun}{lines}").as_bytes()).await.unwrap();
        let reply = reply(&mut stream).await;
        assert_eq!(reply.status, 408, "{}", reply.text());
        assert!(reply.error().contains("the body did not come within"));
    }
}

#[tokio::test]
async fn large_bodies_wait_for_memory_and_small_ones_do_not() {
    let limits = Limits { body: 1 << 20, workers: 1, body_read: Duration::from_secs(2), ..quick() };
    let served = serve(limits, None, None).await;
    // One that could be the largest, and does not come.
    let mut slow = TcpStream::connect(served.address).await.unwrap();
    let line = "POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 1048576\r\n\r\n";
    slow.write_all(line.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let busy = send(served.address, &post("", ONE)).await;
    assert_eq!((busy.status, busy.header("retry-after")), (429, Some("1")), "{}", busy.text());
    // Who sends a large one reads why as well.
    let large = send(served.address, &post("", &vec![b' '; 1 << 20])).await;
    assert_eq!(large.status, 429);
    assert_eq!(get(served.address, "/v2/health/ready").await.status, 200);
    // When it is given up, its memory is there again.
    assert_eq!(reply(&mut slow).await.status, 408);
    assert_eq!(send(served.address, &post("", ONE)).await.status, 200);
}

#[tokio::test]
async fn bodies_that_are_too_long_are_refused_and_the_client_reads_why() {
    let served = serve(Limits { body: 1 << 16, ..quick() }, None, None).await;
    let body = vec![b' '; 1 << 18];
    assert_eq!(send(served.address, &post("", &body)).await.status, 413);
    let mut chunks =
        b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..32 {
        chunks.extend_from_slice(b"2000\r\n");
        chunks.extend_from_slice(&[b' '; 0x2000]);
        chunks.extend_from_slice(b"\r\n");
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(send(served.address, &chunks).await.status, 413);
    let mut header = b"GET /v2 HTTP/1.1\r\nhost: x\r\n".to_vec();
    for _ in 0..64 {
        header.extend_from_slice(format!("x: {}\r\n", "y".repeat(1000)).as_bytes());
    }
    header.extend_from_slice(b"\r\n");
    assert_eq!(send(served.address, &header).await.status, 431);
}

#[tokio::test]
async fn bytes_that_are_no_requests_end_nothing() {
    let served = serve(quick(), None, None).await;
    let smuggled = "POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\n";
    for bytes in [
        "\0\0\0\0\r\n\r\n".to_string(),
        "GET /v2\r\n\r\n".to_string(),
        "GET  HTTP/1.1\r\n\r\n".to_string(),
        "GET /v2 HTTP/9.9\r\n\r\n".to_string(),
        "GET /v2 HTTP/1.1\r\nbad header\r\n\r\n".to_string(),
        format!("{smuggled}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}x"),
        format!("{smuggled}content-length: -1\r\n\r\n"),
        format!("{smuggled}content-length: 99999999999999999999999\r\n\r\n"),
        format!("{smuggled}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n"),
        format!("{smuggled}transfer-encoding: chunked\r\n\r\nzz\r\n"),
        format!("{smuggled}transfer-encoding: gzip\r\n\r\n"),
    ] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let text = closed(&mut stream).await;
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 400 "), "{bytes}: {text}");
    }
    // Both lengths at once: chunks count, and the connection is not used for another request.
    let both = format!(
        "{smuggled}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\nGET /v2 HTTP/1.1\r\nhost: x\r\n\r\n"
    );
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(both.as_bytes()).await.unwrap();
    let text = closed(&mut stream).await;
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    assert!(text.contains(" 400 "), "{text}");
    assert_eq!(get(served.address, "/v2").await.status, 200);
}

#[tokio::test]
async fn requests_of_a_pipeline_are_answered_in_their_order() {
    let served = serve(Limits::default(), None, None).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let mut all = Vec::new();
    for value in 0..20 {
        let body = String::from_utf8(ONE.to_vec()).unwrap().replace("[7]", &format!("[{value}]"));
        all.extend(post("", body.as_bytes()));
    }
    stream.write_all(&all).await.unwrap();
    for value in 0..20 {
        let reply = reply(&mut stream).await;
        assert!(reply.text().contains(&format!(r#""data":[{value}]"#)), "{}", reply.text());
    }
}

#[tokio::test]
async fn an_answer_that_nobody_takes_closes_its_connection() {
    let served = serve(quick(), None, None).await;
    // More than the buffers of both ends take.
    let count = 24 << 20;
    let head = format!(
        r#"{{"inputs":[{{"name":"x","datatype":"UINT8","shape":[{count}],"parameters":{{"binary_data_size":{count}}}}}],"parameters":{{"binary_data_output":true}}}}"#
    );
    let body = [head.as_bytes(), &vec![1; count]].concat();
    let bytes = post(&format!("inference-header-content-length: {}\r\n", head.len()), &body);
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut taken = Vec::new();
    let _ = stream.read_to_end(&mut taken).await;
    assert!(taken.len() < count, "the answer was held for two seconds");
    // One that is taken comes whole.
    assert_eq!(send(served.address, &bytes).await.body.len(), taken_length(&head, count));
}

/// The length of the answer to a request with this head.
fn taken_length(head: &str, count: usize) -> usize {
    let inputs = &head[r#"{"inputs":"#.len()..head.find(r#","parameters":{"binary_data_output""#).unwrap()];
    let digest = crate::echo::DIGEST;
    format!(r#"{{"model_name":"echo","model_version":"{digest}","outputs":{inputs}}}"#).len() + count
}
