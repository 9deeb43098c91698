//! Properties of answers as a whole: any split gives the same, no half event, no false end.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::usage::{PromptEstimate, Usage};

pub(super) const SPENT: Spent = Spent {
    prompt: PromptEstimate { raw: 900, likely: 1000, upper: 1200 },
    wall: Duration::from_secs(8),
    gpus: 1.0,
    count_load: false,
};

/// What a client gets, and how the answer stands then.
#[derive(Debug, PartialEq)]
struct Outcome {
    sent: Vec<u8>,
    broken: Option<Reason>,
    complete: bool,
    usage: Usage,
}

/// Sends `pieces` through an answer, the last one with the end of the body.
fn run(expect: &Expect, framing: Framing, pieces: &[&[u8]]) -> Outcome {
    let mut answer = Answer::new(expect.clone(), framing);
    let (mut sent, mut broken) = (Vec::new(), None);
    let chunks = pieces.iter().map(|piece| (Bytes::copy_from_slice(piece), false));
    for (chunk, eos) in chunks.chain([(Bytes::new(), true)]) {
        match answer.push(&chunk, eos) {
            Ok(bytes) => sent.extend_from_slice(&bytes),
            Err(end) => {
                sent.extend_from_slice(&end.whole);
                broken = Some(end.denial.reason());
            }
        }
    }
    let usage = answer.metered(&SPENT).usage;
    Outcome { sent, broken, complete: answer.is_complete(), usage }
}

fn whole(shape: Shape, framing: Framing, body: &str) -> Outcome {
    run(&Expect::new(shape), framing, &[body.as_bytes()])
}

const CHAT: &str = concat!(
    ": hello\n\n",
    "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n",
    "event: chunk\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"É\\ndata: [DONE]\\n\\n\"}}]}\r\n\r\n",
    "data: {\"choices\":[{\"delta\":\ndata: {\"content\":\"日本\"}}]}\n\n",
    "data:{\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5}}\r\r",
    "data: [DONE]\n\n",
);

const OLLAMA: &str = concat!(
    "{\"message\":{\"content\":\"É\"},\"done\":false}\n",
    "\r\n { \"message\" : {\"content\":\"日本\"}, \"done\":false }\r\n",
    "{\"done\":true,\"prompt_eval_count\":7,\"eval_count\":5,\"eval_duration\":500000000}\n",
);

const RESPONSES: &str = concat!(
    "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0}\n\n",
    "data: {\"type\":\"response.output_text.delta\",\"delta\":\"É\",\"sequence_number\":1}\n\n",
    "data: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":7,\"output_tokens\":5}}}\n\n",
);

const STREAMS: [(Shape, Framing, &str); 3] = [
    (Shape::OpenAiChat, Framing::Sse, CHAT),
    (Shape::OllamaChat, Framing::NdJson, OLLAMA),
    (Shape::OpenAiResponses, Framing::Sse, RESPONSES),
];

#[test]
fn whole_streams_pass_byte_for_byte() {
    for (shape, framing, stream) in STREAMS {
        let outcome = whole(shape, framing, stream);
        assert_eq!(outcome.sent, stream.as_bytes());
        assert_eq!((outcome.broken, outcome.complete), (None, true));
        assert_eq!((outcome.usage.prompt_tokens, outcome.usage.completion_tokens), (7, 5));
    }
}

/// Cut anywhere, a stream is not complete, and what was sent is a row of whole events.
#[test]
fn cut_streams_never_end_well_nor_within_an_event() {
    for (shape, framing, stream) in STREAMS {
        let ends = event_ends(framing, stream);
        // The last line of NDJSON is whole without its line feed; of an SSE event it is not.
        let needed = stream.len() - usize::from(framing == Framing::NdJson);
        for cut in 0..needed {
            let outcome = run(&Expect::new(shape), framing, &[&stream.as_bytes()[..cut]]);
            assert_eq!(outcome.broken, Some(Reason::UpstreamUnavailable), "{shape:?} at {cut}");
            assert!(!outcome.complete && outcome.usage.estimated, "{shape:?} at {cut}");
            let expected = ends.iter().copied().filter(|&end| end <= cut).max().unwrap_or(0);
            assert_eq!(outcome.sent, &stream.as_bytes()[..expected], "{shape:?} at {cut}");
        }
        let outcome = run(&Expect::new(shape), framing, &[&stream.as_bytes()[..needed]]);
        assert!(outcome.complete && outcome.broken.is_none());
    }
}

/// The places right after an event of the streams above, found without the code under test.
fn event_ends(framing: Framing, stream: &str) -> Vec<usize> {
    let marks: &[&str] = match framing {
        Framing::Sse => &["\n\n", "\r\n\r\n", "\r\r"],
        Framing::NdJson | Framing::Json | Framing::Text => &["\n"],
    };
    marks
        .iter()
        .flat_map(|mark| stream.match_indices(mark).map(|(at, _)| at + mark.len()))
        .collect()
}

#[test]
fn usage_that_the_gateway_asked_for_is_hidden() {
    let check = |stream: &str, expected: &str| {
        let mut expect = Expect::new(Shape::OpenAiChat);
        expect.strip_usage = true;
        for size in [1, 7, stream.len()] {
            let pieces: Vec<_> = stream.as_bytes().chunks(size).collect();
            let outcome = run(&expect, Framing::Sse, &pieces);
            assert_eq!(String::from_utf8(outcome.sent).unwrap(), expected);
            assert!(outcome.complete);
        }
    };
    check(
        "data: {\"choices\":[{\"a\":1.0}], \"usage\":null}\n\ndata: [DONE]\n\n",
        "data: {\"choices\":[{\"a\":1.0}]}\n\ndata: [DONE]\n\n",
    );
    check(
        "data: {\"choices\":[{}]}\n\ndata: {\"choices\":[],\"usage\":{}}\r\n\r\ndata: [DONE]\n\n",
        "data: {\"choices\":[{}]}\n\ndata: [DONE]\n\n",
    );
    check(
        "id: 1\ndata: {\"usage\":{\"prompt_tokens\":1},\ndata: \"choices\":[{}],\"timings\":{}}\n\ndata: [DONE]\n\n",
        "id: 1\ndata: {\ndata: \"choices\":[{}],\"timings\":{}}\n\ndata: [DONE]\n\n",
    );
    check(
        "data: {\"choices\":[],\"usage\":{},\"error\":{}}\n\ndata: [DONE]\n\n",
        "data: {\"choices\":[],\"error\":{}}\n\ndata: [DONE]\n\n",
    );
    check(
        "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\":1\"}}]}\n\ndata: [DONE]\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\":1\"}}]}\n\ndata: [DONE]\n\n",
    );
}

#[test]
fn only_the_true_end_mark_ends_a_stream() {
    use Shape::{OllamaChat, OpenAiChat, OpenAiResponses};
    let check = |shape, framing, stream: &str, complete| {
        let outcome = whole(shape, framing, stream);
        assert_eq!((outcome.complete, outcome.broken.is_none()), (complete, complete), "{stream}");
    };
    let sse = Framing::Sse;
    check(OpenAiChat, sse, "data: [DONE]\n\n", true);
    check(OpenAiChat, sse, "data:[DONE] \r\n\r", true);
    check(OpenAiChat, sse, "data: [DONE]\n", false);
    check(OpenAiChat, sse, "data: [DONE]x\n\n", false);
    check(OpenAiChat, sse, ": [DONE]\n\nevent: [DONE]\n\n", false);
    check(OpenAiChat, sse, "data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n", false);
    check(OpenAiChat, sse, "data: {\"choices\":[{\"delta\":{\"content\":\"[DONE]\"}}]}\n\n", false);
    check(OpenAiResponses, sse, "data: [DONE]\n\n", false);
    check(OpenAiResponses, sse, "data: {\"type\":\"response.incomplete\"}\n\n", true);
    check(OpenAiResponses, sse, "event: response.completed\ndata: {\"type\":\"x\"}\n\n", false);
    check(OllamaChat, Framing::NdJson, "{\"done\":true}", true);
    check(OllamaChat, Framing::NdJson, "{\"done\":true", false);
    check(OllamaChat, Framing::NdJson, "[DONE]\n", false);
    check(
        OllamaChat,
        Framing::NdJson,
        "{\"message\":{\"content\":\"\\\"done\\\":true\"}}\n",
        false,
    );
    check(OllamaChat, Framing::NdJson, "", false);
}

#[test]
fn nothing_that_speaks_passes_after_the_end() {
    let stream = "data: [DONE]\n\n: bye\n\ndata: {\"choices\":[]}\n\ndata: junk\n\n";
    let outcome = whole(Shape::OpenAiChat, Framing::Sse, stream);
    assert_eq!(outcome.sent, b"data: [DONE]\n\n: bye\n\n");
    let line = "{\"done\":true}\n{\"response\":\"more\"}\n";
    let outcome = whole(Shape::OllamaGenerate, Framing::NdJson, line);
    assert_eq!(outcome.sent, b"{\"done\":true}\n");
}

#[test]
fn what_cannot_be_read_does_not_pass() {
    for size in [1, 1000] {
        let stream = b"data: {\"choices\":[]}\n\ndata: oops\n\ndata: [DONE]\n\n";
        let pieces: Vec<_> = stream.chunks(size).collect();
        let outcome = run(&Expect::new(Shape::OpenAiChat), Framing::Sse, &pieces);
        assert_eq!(outcome.sent, b"data: {\"choices\":[]}\n\n");
        assert_eq!((outcome.complete, outcome.broken.is_some()), (false, true));
    }
}

#[test]
fn errors_of_the_upstream_are_an_end() {
    for (shape, framing, body) in [
        (Shape::OpenAiChat, Framing::Sse, "data: {\"error\":{\"message\":\"m\"}}\n\n"),
        (Shape::OpenAiResponses, Framing::Sse, "data: {\"type\":\"error\"}\n\n"),
        (Shape::OllamaChat, Framing::NdJson, "{\"error\":\"m\"}"),
    ] {
        let mut answer = Answer::new(Expect::new(shape), framing);
        assert!(!answer.upstream_error());
        assert_eq!(answer.push(&Bytes::from(body), true).unwrap(), body);
        assert_eq!((answer.upstream_error(), answer.is_complete()), (true, false));
        assert_eq!(answer.error_end(&broken_off("x"), "r"), "");
    }
}

#[test]
fn a_broken_stream_gets_an_error_for_its_end() {
    let mut answer = Answer::new(Expect::new(Shape::OpenAiResponses), Framing::Sse);
    let begun = RESPONSES.split_inclusive("\n\n").take(2).collect::<String>();
    answer.push(&Bytes::from(begun), false).unwrap();
    assert!(answer.saw_text());
    let broken = answer.push(&Bytes::from("data: {"), true).unwrap_err();
    assert_eq!(broken.whole, "");
    let end = answer.error_end(&broken.denial, "req-1");
    assert!(end.starts_with(b"event: error\ndata: {") && end.ends_with(b"}\n\n"));
    assert!(std::str::from_utf8(&end).unwrap().contains("\"sequence_number\":2"));
    let again = answer.push(&Bytes::from("data: [DONE]\n\n"), true).unwrap_err();
    assert_eq!((&again.whole[..], &again.denial), (&b""[..], &broken.denial));
}

#[test]
fn giant_events_break_the_stream_off() {
    let mut expect = Expect::new(Shape::OpenAiCompletions);
    expect.max_event = 100;
    let event = |length: usize| {
        let frame = "data: {\"choices\":[{\"text\":\"\"}]}\n\n".len();
        format!("data: {{\"choices\":[{{\"text\":\"{}\"}}]}}\n\n", "x".repeat(length - frame))
    };
    for size in [1, 64, 1000] {
        let fits = event(100) + "data: [DONE]\n\n";
        let pieces: Vec<_> = fits.as_bytes().chunks(size).collect();
        assert!(run(&expect, Framing::Sse, &pieces).complete);
        let giant = event(100) + &event(101) + "data: [DONE]\n\n";
        let pieces: Vec<_> = giant.as_bytes().chunks(size).collect();
        let outcome = run(&expect, Framing::Sse, &pieces);
        assert_eq!(outcome.broken, Some(Reason::UpstreamUnavailable));
        assert_eq!(outcome.sent, event(100).as_bytes());
    }
    let endless = run(&expect, Framing::NdJson, &[&[b' '; 101]]);
    assert!(endless.broken.is_some());
}

#[test]
fn bodies_are_read_at_their_end() {
    let body = r#"{"choices":[{"message":{"content":"Paris is it"}}],"usage":{"prompt_tokens":7,"completion_tokens":5}}"#;
    let outcome = whole(Shape::OpenAiChat, Framing::Json, body);
    assert_eq!((outcome.sent.as_slice(), outcome.complete), (body.as_bytes(), true));
    assert_eq!((outcome.usage.prompt_tokens, outcome.usage.completion_tokens), (7, 5));
    for cut in 0..body.len() {
        let outcome =
            run(&Expect::new(Shape::OpenAiChat), Framing::Json, &[&body.as_bytes()[..cut]]);
        assert_eq!((outcome.complete, outcome.broken.is_some()), (false, true), "at {cut}");
        assert_eq!(outcome.usage.completion_tokens, cut.div_ceil(4) as u64);
    }
}

#[test]
fn bodies_too_large_to_keep_are_estimated() {
    let mut expect = Expect::new(Shape::OllamaChat);
    expect.max_buffered = 16;
    let body = br#"{"message":{"content":"}"},"eval_count":1}"#;
    let outcome = run(&expect, Framing::Json, &[&body[..10], &body[10..20], &body[20..]]);
    assert_eq!((outcome.sent.as_slice(), outcome.broken), (&body[..], None));
    assert_eq!(outcome.usage.completion_tokens, body.len().div_ceil(4) as u64);
    assert!(outcome.complete && outcome.usage.estimated);
    let cut = run(&expect, Framing::Json, &[&body[..body.len() - 1]]);
    assert!(!cut.complete && cut.broken.is_some());
}

#[test]
fn nothing_of_an_unreadable_body_passes_if_it_came_at_once() {
    let mut answer = Answer::new(Expect::new(Shape::OpenAiChat), Framing::Json);
    let broken = answer.push(&Bytes::from("<html>"), true).unwrap_err();
    assert_eq!(broken.whole, "");
    assert_eq!(answer.error_end(&broken.denial, "r"), "");
}

#[test]
fn lists_are_held_back_and_filtered() {
    let mut expect = Expect::new(Shape::OllamaTags);
    expect.allow_model = Some(Arc::new(|model| model == "a"));
    let mut answer = Answer::new(expect.clone(), Framing::Json);
    assert!(answer.rewrites());
    let (head, tail) = (r#"{"models":[{"name":"a"},"#, r#"{"name":"b"}]}"#);
    assert_eq!(answer.push(&Bytes::from(head), false).unwrap(), "");
    assert_eq!(answer.push(&Bytes::from(tail), true).unwrap(), r#"{"models":[{"name":"a"}]}"#);
    assert!(answer.is_complete());
    assert_eq!(answer.metered(&SPENT).usage, Usage::default());

    expect.max_buffered = 10;
    let outcome = run(&expect, Framing::Json, &[head.as_bytes(), tail.as_bytes()]);
    assert_eq!((outcome.sent.as_slice(), outcome.broken.is_some()), (&b""[..], true));

    assert!(!Answer::new(Expect::new(Shape::OllamaTags), Framing::Json).rewrites());
}

#[test]
fn text_passes_as_it_is() {
    let outcome = whole(Shape::OllamaRoot, Framing::Text, "Ollama is running");
    assert_eq!((outcome.sent.as_slice(), outcome.complete), (&b"Ollama is running"[..], true));
}

#[test]
fn debug_shows_no_text() {
    let mut answer = Answer::new(Expect::new(Shape::OpenAiChat), Framing::Sse);
    answer
        .push(&Bytes::from("data: {\"choices\":[{\"delta\":{\"content\":\"secret"), false)
        .unwrap();
    assert!(!format!("{answer:?}").contains("secret"));
}

/// A stream of events that are good, odd or bad, with all kinds of line ends.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "[a-zÉ日\\\\\" ]{0,6}".prop_map(|text| {
            let content = serde_json::to_string(&text).unwrap();
            format!("data: {{\"choices\":[{{\"delta\":{{\"content\":{content}}}}}],\"usage\":null}}")
        }),
        2 => Just("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3}}".to_owned()),
        1 => Just("data: [DONE]".to_owned()),
        1 => Just(": comment".to_owned()),
        1 => Just("data: \u{feff}oops".to_owned()),
        1 => Just("{\"message\":{\"content\":\"É\"},\"done\":false}".to_owned()),
        1 => Just("{\"done\":true}".to_owned()),
        1 => "\\PC{0,8}",
    ];
    let end = prop_oneof![Just("\n"), Just("\r\n"), Just("\r"), Just("")];
    let line = (piece, end.clone(), end).prop_map(|(piece, a, b)| [piece.as_str(), a, b].concat());
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.concat().into_bytes())
}

fn is_subsequence(part: &[u8], of: &[u8]) -> bool {
    let mut rest = of.iter();
    part.iter().all(|byte| rest.any(|other| other == byte))
}

proptest! {
    #[test]
    fn any_split_gives_the_same(
        bytes in stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        strip_usage in any::<bool>(),
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        for (shape, framing, _) in STREAMS {
            let mut expect = Expect::new(shape);
            expect.strip_usage = strip_usage;
            expect.max_event = 120;
            let at_once = run(&expect, framing, &[&bytes]);
            prop_assert_eq!(&run(&expect, framing, &pieces), &at_once);
            let single: Vec<_> = bytes.chunks(1).collect();
            prop_assert_eq!(&run(&expect, framing, &single), &at_once);
            prop_assert!(is_subsequence(&at_once.sent, &bytes));
            prop_assert!(std::str::from_utf8(&at_once.sent).is_ok());
        }
    }

    #[test]
    fn no_bytes_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for (shape, framing, _) in STREAMS {
            let mut expect = Expect::new(shape);
            expect.strip_usage = true;
            let outcome = run(&expect, framing, &[&bytes]);
            prop_assert!(is_subsequence(&outcome.sent, &bytes));
            prop_assert_eq!(run(&Expect::new(shape), Framing::Json, &[&bytes]).complete, false);
        }
    }

    #[test]
    fn a_member_taken_out_leaves_the_others(
        before in prop::collection::btree_map("[a-t]{1,3}", "\\PC{0,5}", 0..4),
        after in prop::collection::btree_map("[w-z]{1,3}", "\\PC{0,5}", 0..4),
    ) {
        let member = |(key, value): (&String, &String)| format!("{key:?}: {}", serde_json::json!([value]));
        let others: Vec<_> = before.iter().chain(&after).map(member).collect();
        let mut all: Vec<_> = before.iter().map(member).collect();
        all.push("\"usage\" : {\"a\":[1,{}]}".to_owned());
        all.extend(after.iter().map(member));
        let text = format!("{{{}}}", all.join(","));
        let edited = nesting::without_member(text.as_bytes(), "usage").unwrap();
        prop_assert_eq!(String::from_utf8(edited).unwrap(), format!("{{{}}}", others.join(",")));
    }
}
