use std::io::Cursor;

use super::*;

const HEAD: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\n";

fn read(text: &str) -> Result<Vec<TraceRequest>, TraceError> {
    let text: &'static [u8] = Box::leak(text.to_owned().into_bytes().into_boxed_slice());
    Trace::embedded("t", text).requests(Span::ALL)?.collect()
}

fn plain(ms: u64, input_tokens: u64, output_tokens: u64) -> TraceRequest {
    TraceRequest {
        at: Duration::from_millis(ms),
        input_tokens,
        output_tokens,
        model: None,
        stream: None,
    }
}

fn check(text: &str, expect: &[TraceRequest]) {
    assert_eq!(read(text).expect("readable"), expect, "{text:?}");
}

fn refused(text: &str, expect: &str) {
    let error = read(text).expect_err("not readable").to_string();
    assert!(
        error.contains(expect),
        "{text:?}\nsays   {error:?}\nexpect {expect:?}"
    );
}

#[test]
fn the_embedded_forms_are_read() {
    let two = [plain(0, 10, 2), plain(500, 20, 4)];
    check(
        &format!("{HEAD}2023-11-16 18:17:03.9799600,10,2\n2023-11-16 18:17:04.4799600,20,4\n"),
        &two,
    );
    check(
        &format!(
            "\u{feff}{}2023-11-16 18:17:03.5,10,2\r\n\r\n2023-11-16 18:17:04.0,20,4",
            HEAD.replace('\n', "\r\n")
        ),
        &two,
    );
    check(
        "\"output_tokens\",\"ts\",\"input_tokens\"\n\"2\",\"1.0\",10\n4,1.5,20\n",
        &two,
    );
    check(
        "{\"ts\":100.25,\"input_tokens\":10,\"output_tokens\":2,\"status\":200}\n\
         {\"timestamp\":\"1970-01-01T00:01:40.75Z\",\"input_tokens\":20,\"output_tokens\":4}\n",
        &two,
    );
    check(
        "{\"ts\":\"1\",\"input_tokens\":10,\"output_tokens\":2,\"model\":\"m\",\"stream\":true}",
        &[TraceRequest {
            model: Some("m".to_owned()),
            stream: Some(true),
            ..plain(0, 10, 2)
        }],
    );
    check(HEAD, &[]);
}

#[test]
fn slightly_unsorted_requests_are_put_in_order() {
    check(
        &format!("{HEAD}102,1,1\n100,2,1\n101,3,1\n101,4,1\n"),
        &[
            plain(0, 2, 1),
            plain(1000, 3, 1),
            plain(1000, 4, 1),
            plain(2000, 1, 1),
        ],
    );
}

#[test]
fn requests_far_out_of_order_are_refused() {
    let mut text = HEAD.to_owned();
    for second in 0..REORDER_REQUESTS + 5 {
        text.push_str(&format!("{},1,1\n", 1000 + second));
    }
    assert_eq!(read(&text).expect("sorted").len(), REORDER_REQUESTS + 5);
    text.push_str("3,1,1\n");
    refused(&text, "t:10007: the request starts earlier");
}

#[test]
fn wrong_lines_are_named() {
    refused("", "t: the file is empty");
    refused("\n\r\n", "t: the file is empty");
    refused("a,b,c\n1,2,3\n", "t:1: no column TIMESTAMP");
    refused("ts,input_tokens\n1,2\n", "t:1: no column GeneratedTokens");
    refused(
        &format!("{HEAD}1,2,3\n1,2\n"),
        "t:3: 2 fields, but GeneratedTokens is field 3",
    );
    refused(&format!("{HEAD}1,2.5,3\n"), "t:2: ContextTokens is \"2.5\"");
    refused(&format!("{HEAD}1,-2,3\n"), "t:2: ContextTokens is \"-2\"");
    refused(&format!("{HEAD}yesterday,2,3\n"), "t:2: TIMESTAMP \"yesterday\"");
    refused(
        &format!("{HEAD}1,99999999999,3\n"),
        "t:2: ContextTokens is 99999999999, more than",
    );
    refused("{\"ts\":1,\"input_tokens\":1}\n", "t:1: no output_tokens");
    refused("{\"input_tokens\":1,\"output_tokens\":1}\n", "t:1: no ts");
    refused(
        "{\"ts\":true,\"input_tokens\":1,\"output_tokens\":1}\n",
        "t:1: ts is neither",
    );
    refused(
        "{\"ts\":1,\"input_tokens\":\"x\",\"output_tokens\":1}\n",
        "t:1: invalid type",
    );
    refused(
        "{\"ts\":1,\"input_tokens\":1,\"output_tokens\":1}\n{oops\n",
        "t:2: ",
    );
    refused(
        &format!("{HEAD}{}", "9".repeat(2 << 20)),
        "t:2: the line is longer than 1 MiB",
    );
}

#[test]
fn bytes_that_are_not_text_are_refused() {
    let error = Trace::embedded("t", b"\x1f\x8b\xff\xff\n")
        .requests(Span::ALL)
        .err();
    assert!(error.expect("not text").to_string().contains("t:1: not UTF-8"));
}

#[test]
fn a_missing_file_is_named() {
    let error = Trace::file("no/such/trace.csv")
        .summary(Span::ALL)
        .expect_err("missing");
    assert!(error.to_string().starts_with("no/such/trace.csv: "), "{error}");
}

#[test]
fn a_span_moves_the_start() {
    let trace = Trace::embedded(
        "t",
        b"ts,input_tokens,output_tokens\n100,1,1\n110,2,3\n119,4,5\n120,6,7\n",
    );
    let span = Span {
        from: Duration::from_secs(10),
        to: Duration::from_secs(20),
    };
    let requests: Vec<_> = trace
        .requests(span)
        .expect("readable")
        .map(|r| r.expect("readable"))
        .collect();
    assert_eq!(requests, [plain(0, 2, 3), plain(9000, 4, 5)]);
    assert_eq!(
        trace.summary(span).expect("readable"),
        TraceSummary {
            requests: 2,
            input_tokens: 6,
            output_tokens: 8,
            last: Duration::from_secs(9),
        }
    );
    let empty = Span {
        from: Duration::from_secs(500),
        to: Duration::MAX,
    };
    let error = trace.summary(empty).expect_err("nothing there").to_string();
    assert!(error.contains("widen --from and --to"), "{error}");
}

/// A file without end is read as far as it is asked for, and holds no more than the reordering buffer.
#[test]
fn an_endless_file_is_read_in_bounded_memory() {
    struct Endless(u64, Cursor<Vec<u8>>);
    impl Read for Endless {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.1.position() as usize == self.1.get_ref().len() {
                self.0 += 1;
                self.1 = Cursor::new(format!("{},1,1\n", self.0).into_bytes());
            }
            self.1.read(into)
        }
    }
    let reader = Endless(0, Cursor::new(HEAD.as_bytes().to_vec()));
    let lines = Lines::new(Box::new(BufReader::new(reader)), PathBuf::from("t"));
    let mut ordered = Ordered::new(Rows::new(lines).expect("a header"));
    for n in 0..100_000_u64 {
        let request = ordered.next().expect("endless").expect("readable");
        assert_eq!(request.at, Duration::from_secs(n));
    }
    assert!(ordered.held.len() <= REORDER_REQUESTS);
}

#[test]
fn the_azure_trace_is_what_it_is_said_to_be() {
    let trace = Trace::file(concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/azure_code.csv"));
    let all = trace.summary(Span::ALL).expect("readable");
    assert_eq!(all.requests, 8819);
    let busiest = Span {
        from: Duration::from_secs(180),
        to: Duration::from_secs(780),
    };
    let busiest = trace.summary(busiest).expect("readable");
    assert_eq!(busiest.requests, 1903);
    assert_eq!(busiest.input_tokens + busiest.output_tokens, 3_798_689);
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "(\\{|ts,input_tokens,output_tokens\n)?(\\PC|[0-9,\n\r\"{}:-]){0,200}") {
        let _ = read(&text);
    }
}
