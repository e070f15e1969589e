//! Chunked bodies: every byte between the head and the last line has one meaning, or the request is refused.

use super::kit::{Bed, has_body, post, text};

on_both_drivers!(
    chunk_sizes_are_plain_hex_digits,
    chunks_end_where_they_said,
    chunk_extensions_are_bounded_and_go_no_further,
    trailers_never_become_headers,
);

fn chunk_sizes_are_plain_hex_digits() {
    let mut bed = Bed::new();
    let chunked = |body: &str| post("Transfer-Encoding: chunked", body);
    for size in ["5", "05", "0000005", "000000000000005"] {
        bed.served(size, chunked(&format!("{size}\r\nhello\r\n0\r\n\r\n")), has_body("hello"));
    }
    bed.served(
        "a, A",
        chunked("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"),
        has_body("01234567890123456789"),
    );
    for size in [
        "0x5",
        "+5",
        "-1",
        "-5",
        " 5",
        "\t5",
        "5 ",
        "5\t",
        "_5",
        "5_",
        "5.",
        "g",
        "",
        "\u{0}5",
        "5\u{0}",
        "10000000000000005",
        "00000000000000000000005",
        "fffffffffffffffff",
        "\"5\"",
        "5,5",
    ] {
        bed.refused(size, chunked(&format!("{size}\r\nhello\r\n0\r\n\r\n")), &[400]);
    }
    bed.verdict();
}

fn chunks_end_where_they_said() {
    let mut bed = Bed::new();
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello, world\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
        "5\r\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\rX\n\r\n",
    ] {
        bed.refused(body, post("Transfer-Encoding: chunked", body), &[400]);
    }
    // The end is the end: what follows is the next request, and a new one only.
    let two = format!("0\r\n\r\n{}", "GET /canary-x HTTP/1.1\r\nHost: a\r\n\r\n");
    bed.judge("two requests", two.as_bytes(), |bed| {
        let mut raw = bed.gateway.raw();
        raw.send(post("Transfer-Encoding: chunked", &two));
        let texts = [raw.try_answer("GET")?.text(), raw.try_answer("GET")?.text()];
        if texts == ["POST /probe", "GET /canary-x"] { Ok(()) } else { Err(format!("got {texts:?}")) }
    });
    bed.verdict();
}

fn chunk_extensions_are_bounded_and_go_no_further() {
    let mut bed = Bed::new();
    let chunked = |size: &str| post("Transfer-Encoding: chunked", &format!("{size}\r\nhello\r\n0\r\n\r\n"));
    for size in ["5;a", "5;a=b", "5;a=\"b c\"", "5;a=b;c=d"] {
        bed.served(size, chunked(size), |seen| {
            has_body("hello")(seen)?;
            let raw = text(&seen.raw);
            if raw.contains(";a") { Err("the extension went on".to_owned()) } else { Ok(()) }
        });
    }
    for size in ["5;", "5;a\nb", "5\r;a", "5;a\rb", "5;a\u{0}b", "5;\u{1}", "5;a=\"\n\"", "5;a=b\n"] {
        bed.refused(size, chunked(size), &[400]);
    }
    bed.refused("one of 64 KiB", chunked(&format!("5;{}", "a".repeat(64 * 1024))), &[400, 413, 431]);
    let many = format!("1;{}\r\nx\r\n", "a".repeat(60)).repeat(2000);
    bed.refused(
        "many small ones",
        post("Transfer-Encoding: chunked", &format!("{many}0\r\n\r\n")),
        &[400, 413, 431],
    );
    bed.verdict();
}

fn trailers_never_become_headers() {
    let mut bed = Bed::new();
    let trailed =
        |lines: &str| post("Transfer-Encoding: chunked", &format!("5\r\nhello\r\n0\r\n{lines}\r\n\r\n"));
    for name in [
        "Content-Length",
        "Transfer-Encoding",
        "Host",
        "Authorization",
        "Content-Type",
        "X-Forwarded-For",
        "Connection",
    ] {
        bed.either(name, trailed(&format!("{name}: 7")), &[400], move |seen| {
            has_body("hello")(seen)?;
            let evil = |headers: &[(String, String)]| {
                headers.iter().any(|(key, value)| key.eq_ignore_ascii_case(name) && value == "7")
            };
            if evil(&seen.headers) || evil(&seen.trailers) { Err(format!("{name} went on")) } else { Ok(()) }
        });
    }
    for line in ["X: 1\nY: 2", "X : 1", " X: 1", "no colon", ": v", "X: a\u{0}b", "X: 1\r\n Y: 2", "X: a\rb"]
    {
        bed.refused(line, trailed(line), &[400]);
    }
    let large = format!("X-Large: {}\r\n", "a".repeat(4000)).repeat(10);
    bed.refused("40 kB of trailers", trailed(large.trim_end()), &[400, 413, 431]);
    bed.verdict();
}
