//! Parses `requests.txt`, which begins with a description of its format.

/// One case.
#[derive(Clone)]
pub(super) struct Case {
    /// The RFC, its section and a name.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    pub(super) outcomes: Vec<Outcome>,
    /// The hub that replaces `chat`. It identifies the requests of the case at the endpoint.
    pub(super) hub: String,
    number: usize,
}

/// The expected outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Forwarded { target: Option<String>, body: Option<Vec<u8>>, without: Option<String> },
    Rejected { status: u16, kind: String },
    Broken,
    Nothing,
    End,
}

impl Outcome {
    /// Whether a part of the request may reach the endpoint before the gateway rejects it.
    pub(super) fn is_broken_body(&self) -> bool {
        match self {
            Self::Broken => true,
            Self::Rejected { kind, .. } => kind == "body_broken",
            Self::Forwarded { .. } | Self::Nothing | Self::End => false,
        }
    }

    fn parse(text: &str) -> Self {
        let mut words = text.split(' ');
        match words.next().unwrap() {
            "broken" => Self::Broken,
            "nothing" => Self::Nothing,
            "end" => Self::End,
            "202" => {
                let (mut target, mut body, mut without) = (None, None, None);
                // A body may contain spaces.
                let rest = text.strip_prefix("202").unwrap().trim();
                let (options, escaped) =
                    rest.split_once("body=").map_or((rest, None), |(before, body)| (before, Some(body)));
                if let Some(escaped) = escaped {
                    let (escaped, name) =
                        escaped.split_once(" without=").map_or((escaped, None), |(body, name)| (body, Some(name)));
                    body = Some(unescaped(escaped));
                    without = name.map(str::to_owned);
                }
                if options.starts_with('/') {
                    target = Some(options.trim().to_owned());
                }
                Self::Forwarded { target, body, without }
            }
            status => Self::Rejected { status: status.parse().unwrap(), kind: words.next().unwrap().to_owned() },
        }
    }
}

impl Case {
    /// Returns the case with its own hub.
    pub(super) fn numbered(&self, prefix: &str) -> Self {
        let hub = format!("{prefix}{:04}", self.number);
        let renamed = |text: &[u8]| replace(text, b"/hubs/chat", format!("/hubs/{hub}").as_bytes());
        let mut case = Self { bytes: renamed(&self.bytes), hub: hub.clone(), ..self.clone() };
        for outcome in &mut case.outcomes {
            if let Outcome::Forwarded { target, body, .. } = outcome {
                *target = target.take().map(|target| String::from_utf8(renamed(target.as_bytes())).unwrap());
                *body = body.take().map(|body| renamed(&body));
            }
        }
        case
    }

    /// Returns the target that is sent.
    pub(super) fn target(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        text.trim_start().split(' ').nth(1).unwrap().to_owned()
    }

    pub(super) fn is_head(&self) -> bool {
        self.bytes.starts_with(b"HEAD ")
    }
}

pub(super) fn read() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in include_str!("requests.txt").lines() {
        if let Some(title) = line.strip_prefix("--- ") {
            let (name, outcomes) = title.split_once(" => ").unwrap();
            let outcomes = outcomes.split(", ").map(Outcome::parse).collect();
            let number = cases.len();
            cases.push(Case { name: name.to_owned(), bytes: Vec::new(), outcomes, hub: String::new(), number });
        } else if !line.starts_with("### ")
            && let Some(case) = cases.last_mut()
        {
            case.bytes.extend(bytes(line));
        }
    }
    cases
}

/// Returns the bytes of a line.
fn bytes(line: &str) -> Vec<u8> {
    let (text, end) = match line.strip_suffix('\\') {
        Some(text) if !text.ends_with('\\') => (text, ""),
        _ => (line, "\r\n"),
    };
    let mut bytes = unescaped(&expanded(text));
    bytes.extend(end.as_bytes());
    bytes
}

/// Expands the expressions in braces.
fn expanded(text: &str) -> String {
    let Some((before, rest)) = text.split_once('{') else { return text.to_owned() };
    let Some((what, after)) = rest.split_once('}') else { return text.to_owned() };
    let counted = what.split_once(' ').and_then(|(count, of)| Some((count.parse::<usize>().ok()?, of)));
    let list = |count: usize, one: &dyn Fn(usize) -> String, between: &str| {
        (0..count).map(one).collect::<Vec<_>>().join(between)
    };
    let replacement = match (what, counted) {
        ("post", _) => "POST /api/hubs/chat/:send HTTP/1.1\\r\\nHost: localhost".to_owned(),
        ("smuggled chunk", _) => {
            let data = "POST /api/hubs/chat/:send?smuggled HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n";
            let hub = "/hubs/tcp0000".len() - "/hubs/chat".len();
            format!("{:x}\\r\\n{data}", unescaped(data).len() + hub)
        }
        (_, Some((count, "lines"))) => list(count, &|number| format!("X-{number}: y"), "\\r\\n"),
        (_, Some((count, "names"))) => list(count, &|number| format!("x{number}"), ","),
        (_, Some((count, "bytes"))) => "y".repeat(count),
        _ => return text.to_owned(),
    };
    format!("{before}{replacement}{after}")
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next().unwrap() {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'0' => 0,
                b'x' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                b'\\' => b'\\',
                other => panic!("\\{} in {text}", char::from(other)),
            },
            byte => byte,
        });
    }
    bytes
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    replaced.extend_from_slice(rest);
    replaced
}
