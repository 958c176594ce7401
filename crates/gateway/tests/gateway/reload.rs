//! Another configuration for requests that come from now on.

use crate::support::*;

#[tokio::test]
async fn a_reload_changes_upstreams_and_limits_and_keeps_what_waits() {
    let mut first = Upstream::start().await;
    let mut second = Upstream::start().await;
    let gateway = gateway(first.address, "", "", "concurrent = 1");
    let one = tokio::spawn(send(gateway.address(), chat()));
    let one_seen = first.request().await;
    let two = tokio::spawn(send(gateway.address(), chat()));
    until("the second waits", || waiting(&gateway) == 1).await;

    let wider = config(&format!("http://{}", first.address), "", "", "concurrent = 2");
    gateway.reload(wider).unwrap();
    let two_seen = first.request().await;
    assert_eq!(waiting(&gateway), 0, "the wider limit lets the second through");

    let elsewhere = config(&format!("http://{}", second.address), "", "", "concurrent = 3");
    gateway.reload(elsewhere).unwrap();
    let three = tokio::spawn(send(gateway.address(), chat()));
    second.request().await.answer_json(200, "{\"from\":\"second\"}");
    assert_eq!(three.await.unwrap().text(), "{\"from\":\"second\"}");

    one_seen.answer_json(200, "{\"n\":1}");
    two_seen.answer_json(200, "{\"n\":2}");
    assert_eq!(one.await.unwrap().text(), "{\"n\":1}");
    assert_eq!(two.await.unwrap().text(), "{\"n\":2}");
    until("nothing is in flight", || in_flight(&gateway) == 0).await;
}
