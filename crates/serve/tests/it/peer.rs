//! Requests of tritonclient, byte for byte, and the answers that it read as it should.

use data_encoding::HEXLOWER;
use halfstep_serve::limits::Limits;
use serde::Deserialize;

use crate::client::{post, send, serve};

/// Recorded by `scripts/check_serving.py --record`, which checks each answer by tritonclient.
const RECORDED: &str = include_str!("../data/tritonclient.json");

#[derive(Deserialize)]
pub struct Case {
    what: String,
    pub request: String,
    pub request_header: Option<usize>,
    status: u16,
    answer: String,
    answer_header: Option<usize>,
}

pub fn recorded() -> Vec<Case> {
    serde_json::from_str(RECORDED).unwrap()
}

#[tokio::test]
async fn what_tritonclient_sends_is_answered_as_it_was() {
    let served = serve(Limits::default(), None, None).await;
    let cases = recorded();
    assert!(cases.len() > 40);
    for case in cases {
        let lines = case.request_header.map(|n| format!("inference-header-content-length: {n}\r\n"));
        let body = HEXLOWER.decode(case.request.as_bytes()).unwrap();
        let reply = send(served.address, &post(&lines.unwrap_or_default(), &body)).await;
        assert_eq!(reply.status, case.status, "{}", case.what);
        assert_eq!(HEXLOWER.encode(&reply.body), case.answer, "{}", case.what);
        let header = reply.header("inference-header-content-length").map(|n| n.parse().unwrap());
        assert_eq!(header, case.answer_header, "{}", case.what);
    }
}
