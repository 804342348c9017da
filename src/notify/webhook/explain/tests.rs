use http::HeaderValue;

use super::*;

/// The vectors of the reference libraries: secret, id, timestamp, body and signature.
struct Vector {
    secret: &'static str,
    id: &'static str,
    timestamp: i64,
    body: &'static str,
    signature: &'static str,
}

const V1: Vector = Vector {
    secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
    timestamp: 1_614_265_330,
    body: r#"{"test": 2432232314}"#,
    signature: "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
};
const V2: Vector = Vector {
    secret: "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    id: "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
    timestamp: 1_649_367_553,
    body: r#"{"email":"test@example.com","username":"test_user"}"#,
    signature: "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
};
const V1_ED25519: &str =
    "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";

/// A vector as it was received.
struct Case {
    headers: HeaderMap,
    secrets: Vec<String>,
    body: Vec<u8>,
    now: i64,
}

impl Vector {
    fn case(&self) -> Case {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER_ID, HeaderValue::from_static(self.id));
        headers.insert(HEADER_TIMESTAMP, self.timestamp.into());
        headers.insert(HEADER_SIGNATURE, HeaderValue::from_static(self.signature));
        let (secrets, body) = (vec![self.secret.to_owned()], self.body.as_bytes().to_vec());
        Case { headers, secrets, body, now: self.timestamp + 1 }
    }

    /// Signed by a sender that does something else than the standard says.
    fn signed(&self, key: &[u8], content: &str) -> Case {
        use base64::Engine as _;
        let mac = base64::engine::general_purpose::STANDARD.encode(mac(key, &[content.as_bytes()]));
        self.case().signature(&format!("v1,{mac}"))
    }

    fn key(&self) -> Vec<u8> {
        self.secret.parse::<SigningSecret>().unwrap().expose_bytes().to_vec()
    }

    fn content(&self) -> String {
        format!("{}.{}.{}", self.id, self.timestamp, self.body)
    }
}

impl Case {
    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, HeaderValue::from_str(value).unwrap());
        self
    }

    fn signature(self, value: &str) -> Self {
        self.header(HEADER_SIGNATURE, value)
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    fn secrets(self, secrets: &[&str]) -> Self {
        Self { secrets: secrets.iter().map(|&text| text.to_owned()).collect(), ..self }
    }

    fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self }
    }

    fn explain(&self) -> Explanation {
        let secrets: Vec<_> = self.secrets.iter().map(String::as_str).collect();
        let explanation =
            explain(&secrets, &self.headers, &self.body, Timestamp::from_second(self.now).unwrap());
        let (key, text) = (V1.key(), format!("{explanation:?}"));
        assert!(
            !text.contains(&V1.secret["whsec_".len()..]) && !text.contains(&format!("{key:?}")),
            "{text}"
        );
        explanation
    }

    /// What is found in one that does not verify.
    fn faults(&self) -> Vec<Finding> {
        let Explanation { verified, findings } = self.explain();
        assert!(!verified, "{findings:?}");
        assert!(findings.iter().any(|finding| !matches!(finding, Finding::Matches { .. })), "{findings:?}");
        findings
    }
}

const MATCHES: Finding = Finding::Matches { signature: 1, secret: 1 };

#[test]
fn what_verifies_says_which_signature_and_secret() {
    for vector in [V1, V2] {
        assert_eq!(vector.case().explain(), Explanation { verified: true, findings: vec![MATCHES] });
    }
    let rotated = V1.case().signature(&format!("{} {}", V2.signature, V1.signature));
    let explanation = rotated.secrets(&[V2.secret, V1.secret]).explain();
    assert_eq!(
        explanation,
        Explanation { verified: true, findings: vec![Finding::Matches { signature: 2, secret: 2 }] }
    );
}

#[test]
fn another_secret_and_another_body_fit_nothing() {
    assert_eq!(V1.case().secrets(&[V2.secret]).faults(), [Finding::NothingFits]);
    assert_eq!(V1.case().body(r#"{"test": 2432232315}"#).faults(), [Finding::NothingFits]);
    assert_eq!(V1.case().header(HEADER_ID, "msg_other").faults(), [Finding::NothingFits]);
}

#[test]
fn without_a_secret_the_headers_are_looked_at() {
    assert_eq!(V1.case().secrets(&[]).faults(), [Finding::NoSecret]);
    let faults = V1.case().secrets(&["hunter2"]).faults();
    assert_eq!(faults, [Finding::MalformedSecret { secret: 1 }, Finding::NothingFits]);
}

#[test]
fn a_secret_that_is_read_wrong_is_found() {
    let rest = V1.secret.trim_start_matches("whsec_");
    let misread = |reading| vec![MATCHES, Finding::KeyMisread { secret: 1, reading }];
    for (key, reading) in [
        (V1.secret.to_owned(), KeyReading::WholeText),
        (rest.to_owned(), KeyReading::TextAfterPrefix),
        (format!("{}\n", V1.secret), KeyReading::LineEndIncluded),
    ] {
        assert_eq!(V1.signed(key.as_bytes(), &V1.content()).faults(), misread(reading));
    }
    let bare = [vec![Finding::MalformedSecret { secret: 1 }], misread(KeyReading::PrefixMissing)].concat();
    assert_eq!(V1.case().secrets(&[rest]).faults(), bare);
    let url_safe = V2.secret.replace('+', "-");
    let written = [vec![Finding::MalformedSecret { secret: 1 }], misread(KeyReading::UrlSafe)].concat();
    assert_eq!(V2.case().secrets(&[&url_safe]).faults(), written);
}

#[test]
fn a_header_that_is_missing_or_has_another_name_is_named() {
    for header in [HEADER_ID, HEADER_TIMESTAMP, HEADER_SIGNATURE] {
        let case = V1.case();
        let value = case.headers[header].to_str().unwrap().to_owned();
        let case = case.without(header);
        assert_eq!(case.faults(), [Finding::MissingHeader { header, found_as: None }]);
        let suffix = header.trim_start_matches("webhook-");
        for prefix in ["svix-", "http_webhook_"] {
            let name = format!("{prefix}{suffix}");
            let mut headers = case.headers.clone();
            headers.insert(http::HeaderName::try_from(&name).unwrap(), value.parse().unwrap());
            let faults = Case { headers, ..V1.case() }.faults();
            assert_eq!(faults, [Finding::MissingHeader { header, found_as: Some(name) }, MATCHES]);
        }
    }
}

#[test]
fn a_header_that_came_twice_is_told() {
    let mut case = V1.case();
    case.headers.append(HEADER_ID, HeaderValue::from_static("evt_other"));
    let repeated = Finding::RepeatedHeader { header: HEADER_ID };
    assert_eq!(case.explain(), Explanation { verified: true, findings: vec![repeated.clone(), MATCHES] });
    let mut case = V1.case().header(HEADER_ID, "evt_other");
    case.headers.append(HEADER_ID, HeaderValue::from_static(V1.id));
    let other = Finding::OtherHeader { header: HEADER_ID, instead: HEADER_ID.to_owned() };
    assert_eq!(case.faults(), [repeated, MATCHES, other]);
    let case = V1.case().header(HEADER_ID, "evt_other").header("svix-id", V1.id);
    let other = Finding::OtherHeader { header: HEADER_ID, instead: "svix-id".to_owned() };
    assert_eq!(case.faults(), [MATCHES, other]);
    let mut case = V1.case();
    case.headers.insert(HEADER_ID, HeaderValue::from_bytes(b"\xff").unwrap());
    assert_eq!(case.faults(), [Finding::NotText { header: HEADER_ID }]);
}

#[test]
fn the_clock_is_judged_to_the_second() {
    let at = |off| Case { now: V1.timestamp + off, ..V1.case() };
    assert!(at(300).explain().verified && at(-300).explain().verified);
    assert_eq!(at(301).faults(), [Finding::TooOld { age_seconds: 301 }, MATCHES]);
    assert_eq!(at(-301).faults(), [Finding::TooNew { ahead_seconds: 301 }, MATCHES]);
}

#[test]
fn a_timestamp_that_is_no_number_of_seconds_is_told() {
    let milliseconds = format!("{}123", V1.timestamp);
    let seconds = Finding::OtherContent { content: Content::Seconds };
    let case = V1.case().header(HEADER_TIMESTAMP, &milliseconds);
    assert_eq!(case.faults(), [Finding::TimestampInMilliseconds, MATCHES, seconds]);
    let case = V1.signed(&V1.key(), &format!("{}.{milliseconds}.{}", V1.id, V1.body));
    let case = case.header(HEADER_TIMESTAMP, &milliseconds);
    assert_eq!(case.faults(), [Finding::TimestampInMilliseconds, MATCHES]);
    for text in ["2021-02-25T15:02:10Z", "1614265330.5", "+1614265330", ""] {
        let case = V1.case().header(HEADER_TIMESTAMP, text);
        assert_eq!(case.faults(), [Finding::TimestampNotSeconds, Finding::NothingFits], "{text}");
    }
}

#[test]
fn the_timestamp_of_another_attempt_is_found() {
    for (off, found) in [(5, -5), (-7200, 7200)] {
        let case = V1.case().header(HEADER_TIMESTAMP, &(V1.timestamp + off).to_string());
        let case = Case { now: V1.timestamp + off, ..case };
        assert_eq!(case.faults(), [MATCHES, Finding::OtherAttempt { off_seconds: found }]);
    }
    // The search does not hash without end.
    let long = V1.case().body(vec![b' '; 1 << 20]).header(HEADER_TIMESTAMP, "1614265331");
    assert_eq!(long.faults(), [Finding::NothingFits]);
}

#[test]
fn what_other_vendors_sign_is_found() {
    let Vector { id, timestamp, body, .. } = V1;
    for (signed, content) in [
        (body.to_owned(), Content::BodyAlone),
        (format!("{timestamp}.{body}"), Content::TimestampAndBody),
        (format!("{id}.{body}"), Content::IdAndBody),
        (format!("{timestamp}.{id}.{body}"), Content::Swapped),
        (format!("{id}{timestamp}{body}"), Content::NoDots),
    ] {
        let case = V1.signed(&V1.key(), &signed);
        assert_eq!(case.faults(), [MATCHES, Finding::OtherContent { content }]);
    }
    let body = r#"{"id":"evt_1"}"#;
    let case = V1.signed(&V1.key(), &format!("evt_1.{timestamp}.{body}")).body(body);
    assert_eq!(case.faults(), [MATCHES, Finding::OtherContent { content: Content::IdOfBody }]);
}

#[test]
fn a_signature_that_is_written_wrong_is_told() {
    let bare = V1.signature.trim_start_matches("v1,");
    let hexadecimal = crate::domain::hex::hex(&mac(&V1.key(), &[V1.content().as_bytes()]));
    let miswritten = |form| Finding::Miswritten { position: 1, form };
    let scheme = |prefix: &str| Finding::OtherScheme { position: 1, prefix: prefix.to_owned() };
    for (signature, faults) in [
        (bare.to_owned(), vec![Finding::NoScheme { position: 1 }]),
        (format!("v1a,{bare}"), vec![scheme("v1a,")]),
        (format!("v1={bare}"), vec![scheme("v1=")]),
        (format!("v1,{hexadecimal}"), vec![miswritten(Form::Hex)]),
        (format!("v1,{}", hexadecimal.to_uppercase()), vec![miswritten(Form::Hex)]),
        (format!("sha256={hexadecimal}"), vec![scheme("sha256="), miswritten(Form::Hex)]),
        (V1.signature.trim_end_matches('=').to_owned(), vec![miswritten(Form::Unpadded)]),
        (V1.signature.replace('+', "-").replace('/', "_"), vec![miswritten(Form::UrlSafe)]),
        (V1.signature[..V1.signature.len() - 5].to_owned(), vec![miswritten(Form::Truncated)]),
        (V1.signature[.."v1,".len() + 12].to_owned(), vec![miswritten(Form::Truncated)]),
    ] {
        let expected = [vec![MATCHES], faults].concat();
        assert_eq!(V1.case().signature(&signature).faults(), expected, "{signature}");
    }
    // So little of it can be found by trying.
    let short = &V1.signature[.."v1,".len() + 11];
    assert_eq!(V1.case().signature(short).faults()[0], Finding::Unreadable { position: 1 });
    let stranger = V1.signed(&V2.key(), &V1.content());
    let unpadded = stranger.headers[HEADER_SIGNATURE].to_str().unwrap().trim_end_matches('=').to_owned();
    assert_eq!(stranger.signature(&unpadded).faults(), [miswritten(Form::Unpadded), Finding::NothingFits]);
}

#[test]
fn signatures_that_no_secret_verifies_are_told_apart() {
    let case = V1.case().signature(V1_ED25519);
    assert_eq!(case.faults(), [Finding::Asymmetric { position: 1 }, Finding::NothingFits]);
    let both = V1.case().signature(&format!("{V1_ED25519}  v1,???? {}", V1.signature));
    let expected = vec![
        Finding::Asymmetric { position: 1 },
        Finding::EmptySignature { position: 2 },
        Finding::Unreadable { position: 3 },
        Finding::Matches { signature: 4, secret: 1 },
    ];
    assert_eq!(both.explain(), Explanation { verified: true, findings: expected });
}

#[test]
fn a_changed_body_is_traced_back_to_the_signed_one() {
    let changed = |case: Case, change| {
        assert_eq!(case.faults(), [MATCHES, Finding::BodyChanged { change }]);
    };
    let style = |layout| {
        BodyChange::Reserialized(Style { layout, escapes: Escapes::Same, sorted: false, line_end: false })
    };
    changed(V1.case().body("{\"test\":2432232314}"), style(Layout::Spaced));
    changed(V1.case().body("{\n  \"test\": 2432232314\n}"), style(Layout::Spaced));
    let pretty = "{\n    \"email\": \"test@example.com\",\n    \"username\": \"test_user\"\n}\n";
    changed(V2.case().body(pretty), style(Layout::Compact));
    let sorted = Style { layout: Layout::Compact, escapes: Escapes::Same, sorted: true, line_end: false };
    let turned = r#"{"username":"test_user","email":"test@example.com"}"#;
    changed(V2.case().body(turned), BodyChange::Reserialized(sorted));

    changed(V1.case().body(format!("{}\n", V1.body)), BodyChange::SpaceAdded);
    changed(V1.case().body(format!("\u{feff}{}", V1.body)), BodyChange::ByteOrderMarkAdded);
    changed(V1.case().body(serde_json::to_vec(V1.body).unwrap()), BodyChange::JsonString);
    let base64 = "eyJ0ZXN0IjogMjQzMjIzMjMxNH0=";
    changed(V1.case().body(base64), BodyChange::Base64);
    let signed = |body: &str| V1.signed(&V1.key(), &format!("{}.{}.{body}", V1.id, V1.timestamp));
    changed(signed("a\n").body("a"), BodyChange::LineEndRemoved);
    changed(signed("a\nb").body("a\r\nb"), BodyChange::LineFeedToCrLf);
    changed(signed("a\r\nb").body("a\nb"), BodyChange::CrLfToLineFeed);
    changed(signed("\u{feff}a").body("a"), BodyChange::ByteOrderMarkRemoved);
    let php = Style {
        layout: Layout::Compact,
        escapes: Escapes::NonAsciiAndSlashes,
        sorted: false,
        line_end: false,
    };
    changed(
        signed(r#"{"u":"a\/b","e":"\u00e9"}"#).body(r#"{"u":"a/b","e":"é"}"#),
        BodyChange::Reserialized(php),
    );
    assert_eq!(V1.case().body("").faults(), [Finding::EmptyBody, Finding::NothingFits]);
}

#[test]
fn every_finding_is_a_sentence_for_people_and_has_a_kind_for_programs() {
    let case = V1.case().without(HEADER_ID).header("svix-id", V1.id);
    let Explanation { findings, .. } = Case { now: V1.timestamp + 400, ..case }.explain();
    let texts: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts[0],
        "the header webhook-id is missing; it came as svix-id, which not every verifier reads"
    );
    assert!(texts[1].starts_with("it was signed 400 s ago"));
    let json = serde_json::to_value(&findings).unwrap();
    assert_eq!(
        json[0],
        serde_json::json!({"kind": "missing_header", "header": "webhook-id", "found_as": "svix-id"})
    );
    assert_eq!(json[2], serde_json::json!({"kind": "matches", "signature": 1, "secret": 1}));
    let change = BodyChange::Reserialized(Style {
        layout: Layout::Compact,
        escapes: Escapes::Same,
        sorted: true,
        line_end: true,
    });
    assert_eq!(
        serde_json::to_value(Finding::BodyChanged { change }).unwrap()["change"],
        serde_json::json!({"change": "reserialized", "layout": "compact", "escapes": "same", "sorted": true, "line_end": true})
    );
}
