//! The model that a form names: audio and images are sent as `multipart/form-data`.

use memchr::memmem::Finder;

use super::fields::MODEL_BYTES_MAX;

/// The longest boundary (RFC 2046 §5.1.1).
const BOUNDARY_BYTES_MAX: usize = 70;

/// The longest head of a part that is read.
const HEAD_BYTES_MAX: usize = 1 << 10;

/// Returns the value of the form's first field called `model`; `None` if it has none, or is no form. Linear in the
/// body's length; nothing of it is copied but that.
pub(super) fn model(content_type: &str, body: &[u8]) -> Option<String> {
    let delimiter = format!("--{}", boundary(content_type)?);
    let finder = Finder::new(&delimiter);
    let mut parts = finder.find_iter(body).map(|at| at + delimiter.len()).peekable();
    while let Some(start) = parts.next() {
        let end = parts
            .peek()
            .map_or(body.len(), |next| next.saturating_sub(delimiter.len()));
        let part = body.get(start..end)?.strip_prefix(b"\r\n").unwrap_or_default();
        let head_end = memchr::memmem::find(&part[..part.len().min(HEAD_BYTES_MAX)], b"\r\n\r\n");
        let Some(head_end) = head_end else { continue };
        let (head, value) = part.split_at(head_end);
        if !is_model(head) {
            continue;
        }
        let value = value.get(4..)?.strip_suffix(b"\r\n")?;
        let value = str::from_utf8(value).ok()?;
        return (value.len() <= MODEL_BYTES_MAX).then(|| value.to_owned());
    }
    None
}

/// Returns the boundary of a form's parts.
fn boundary(content_type: &str) -> Option<&str> {
    let (media, parameters) = content_type.split_once(';')?;
    if !media.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("boundary")
            .then(|| value.trim().trim_matches('"'))
    })?;
    (1..=BOUNDARY_BYTES_MAX)
        .contains(&boundary.len())
        .then_some(boundary)
}

/// Returns whether a part's head names the field `model`, and no file.
fn is_model(head: &[u8]) -> bool {
    let Ok(head) = str::from_utf8(head) else {
        return false;
    };
    head.split("\r\n").any(|line| {
        let Some((name, value)) = line.split_once(':') else {
            return false;
        };
        let mut parameters = value.split(';').map(str::trim);
        name.eq_ignore_ascii_case("content-disposition")
            && parameters.next() == Some("form-data")
            && parameters
                .next()
                .is_some_and(|name| matches!(name, "name=\"model\"" | "name=model"))
            && parameters.next().is_none()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=xyz";

    #[test]
    fn the_model_is_found_wherever_it_stands() {
        let file = "--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\nContent-Type: audio/mpeg\r\n\r\nname=\"model\"\r\n\r\nwrong\r\n--xy\r\n";
        let field = |name: &str| {
            format!("--xyz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\nwhisper-1\r\n")
        };
        let model_field = field("model");
        for (content_type, body, expect) in [
            (TYPE, format!("{model_field}{file}--xyz--\r\n"), Some("whisper-1")),
            (TYPE, format!("{file}{model_field}--xyz--\r\n"), Some("whisper-1")),
            (
                "Multipart/Form-Data;charset=x; Boundary=\"xyz\"",
                format!("preamble\r\n{model_field}--xyz--"),
                Some("whisper-1"),
            ),
            (TYPE, format!("{file}{}--xyz--", field("modelx")), None),
            (TYPE, file.replace("\"file\"", "\"model\""), None),
            (TYPE, model_field.replace("whisper-1", &"m".repeat(257)), None),
            ("multipart/form-data; boundary=other", model_field.clone(), None),
            ("multipart/form-data; boundary=", model_field.clone(), None),
            ("multipart/form-data", model_field.clone(), None),
            ("application/json; boundary=xyz", model_field.clone(), None),
            (TYPE, String::new(), None),
            (TYPE, "--xyz".to_owned(), None),
        ] {
            let found = model(content_type, body.as_bytes());
            assert_eq!(found.as_deref(), expect, "{content_type}: {body}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            content_type in "multipart/form-data; ?boundary=[a\"=; -]{0,4}",
            pieces in proptest::collection::vec(
                proptest::sample::select(vec![
                    &b"--a"[..],
                    b"\r\n",
                    b"Content-Disposition: form-data; name=\"model\"",
                    b"\xff:",
                    b";",
                ]),
                0..20,
            ),
        ) {
            let _ = model(&content_type, &pieces.concat());
        }
    }
}
