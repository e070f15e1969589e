//! What functions in Lua see, do, and may not do.

use crate::exchange::Source;
use crate::plugin::testing::{Bench, Desk, Request, agree, check, refuses};
use crate::plugins::serverless_post_function::ServerlessPostFunction;
use crate::plugins::serverless_pre_function::ServerlessPreFunction;
use crate::proto::head::Method;

type Pre = ServerlessPreFunction;

fn config(phase: &str, functions: &[&str]) -> String {
    serde_json::json!({"phase": phase, "functions": functions}).to_string()
}

fn bench(phase: &str, functions: &[&str]) -> Bench<Pre> {
    check::<Pre>(&config(phase, functions)).unwrap_or_else(|faults| panic!("{faults:?}"))
}

/// What a function says of a request, by `ngx.say`.
fn says(request: Request, body: &str) -> String {
    let source =
        format!("return function(conf, ctx) local core = require('apisix.core'); ngx.say({body}) end");
    let bench = bench("access", &[&source]);
    let outcome = bench.request(request);
    let reply = outcome.reply.unwrap_or_else(|| panic!("no answer: {:?}", bench.notes()));
    assert_eq!(reply.status, 200, "{body}: {:?}", bench.notes());
    String::from_utf8_lossy(reply.body()).into_owned()
}

#[test]
fn a_function_answers_in_each_of_the_ways_that_there_are() {
    for (source, status, body) in [
        ("return function() return 403, 'forbidden' end", 403, "forbidden"),
        ("return function() return 403, {a = 1} end", 403, "{\"a\":1}\n"),
        ("return function() ngx.exit(201) end", 201, ""),
        ("return function() ngx.status = 404; ngx.say('a', 1, true); ngx.print('b') end", 404, "a1true\nb"),
        (
            "return function() require('apisix.core').response.exit(418, {list = {1, 2}}) end",
            418,
            "{\"list\":[1,2]}\n",
        ),
        ("return function() require('apisix.core').response.exit(200) end", 200, ""),
        ("return function() return 503 end", 503, ""),
        ("return function() ngx.exit(ngx.ERROR) end", 500, ""),
    ] {
        for phase in ["rewrite", "access"] {
            bench(phase, &[source]).request(Request::get("/")).replies(status, body);
        }
    }
    let bench = bench("access", &["return function() ngx.redirect('/there', 307) end"]);
    let answer = bench.request(Request::get("/")).replies(307, "").answer();
    assert_eq!(answer.header("Location"), "/there");
}

#[test]
fn functions_run_in_order_until_one_answers() {
    let bench = bench(
        "access",
        &[
            "return function(_, ctx) ctx.seen = (ctx.seen or '') .. 'one ' end",
            "return function(_, ctx) if ctx.var.arg_stop then return 200, ctx.seen end end",
            "return function(_, ctx) return 202, ctx.seen .. 'three' end",
        ],
    );
    bench.request(Request::get("/?stop=1")).replies(200, "one ");
    bench.request(Request::get("/")).replies(202, "one three");
}

#[test]
fn what_a_request_says_is_there() {
    let request = || {
        Request::get("/a/b?x=1&y=%20z&x=2")
            .header("X-One", "1")
            .header("X-Two", "a")
            .header("X-Two", "b")
            .body("k=v&n=1")
    };
    for (body, expected) in [
        ("ctx.var.uri, ' ', ctx.var.arg_y, ' ', ctx.var.remote_addr", "/a/b  z 192.0.2.1"),
        ("ngx.var.request_method, ngx.req.get_method(), core.request.get_method()", "GETGETGET"),
        ("ctx.var.nothing == nil, ' ', ngx.var.http_x_one", "true 1"),
        (
            "core.request.header(ctx, 'x-one'), core.request.header(ctx, 'x-two'), core.request.header(ctx, 'x-3')",
            "1anil",
        ),
        (
            "ngx.req.get_headers().x_one, #ngx.req.get_headers()['X-Two'], core.request.headers(ctx).x_two[2]",
            "12b",
        ),
        ("core.json.encode(core.request.get_uri_args(ctx).x), ngx.req.get_uri_args().y", "[\"1\",\"2\"] z"),
        (
            "core.request.get_body(), ' ', core.request.get_post_args(ctx).k, ctx.req_post_args.n",
            "k=v&n=1 v1",
        ),
        (
            "core.request.get_ip(ctx) ~= nil, core.request.get_http_version(), ngx.get_phase()",
            "true1.1access",
        ),
        ("ctx.route_id, ngx.ctx.api_ctx.var.route_id, ctx.curr_req_matched._path", "11/*"),
        ("conf.phase, #conf.functions", "access1"),
    ] {
        assert_eq!(says(request(), body), format!("{expected}\n"), "{body}");
    }
}

#[test]
fn what_functions_are_used_to_is_there() {
    for (body, expected) in [
        ("core.json.decode('{\"a\": [1, null]}').a[2] == ngx.null, (core.json.decode('{'))", "truenil"),
        ("require('cjson').encode({b = 1}), pcall(require('cjson').decode, '{') == false", "{\"b\":1}true"),
        ("ngx.encode_base64('a?'), ngx.decode_base64('YT8='), ngx.decode_base64('*')", "YT8=a?nil"),
        ("ngx.escape_uri('a b/ü'), ngx.unescape_uri('a+b%2F')", "a%20b%2F%C3%BCa b/"),
        (
            "ngx.encode_args({a = 'x y'}), ngx.decode_args('a=1&b').b, ngx.decode_args('a=1&a=2').a[2]",
            "a=x%20ytrue2",
        ),
        (
            "ngx.re.match('hello 12', '([a-z]+) (\\\\d+)')[2], ngx.re.match('x', 'y'), (ngx.re.find('abc', 'B', 'i'))",
            "12nil2",
        ),
        (
            "(ngx.re.gsub('a1b2', '[0-9]', '<$0>')), (ngx.re.sub('aaa', 'a', function(m) return m[0] .. '!' end))",
            "a<1>b<2>a!aa",
        ),
        (
            "core.string.has_prefix('abc', 'ab'), core.string.has_suffix('abc', 'bc'), core.string.find('a.b', '.')",
            "truetrue22",
        ),
        (
            "core.table.try_read_attr({a = {b = 3}}, 'a', 'b'), core.table.deepcopy({x = {1}}).x[1], core.table.nkeys({1, k = 2})",
            "312",
        ),
        (
            "ngx.HTTP_OK, ngx.ERR, ngx.HTTP_POST, ngx.now() > 1e9, ngx.time() == math.floor(ngx.time())",
            "20043truetrue",
        ),
        (
            "select(2, pcall(function() return ngx.timer end)):match('ngx.timer is not available here') ~= nil",
            "true",
        ),
        (
            "select(2, pcall(require, 'resty.http')):match(\"module 'resty.http' is not available here\") ~= nil",
            "true",
        ),
    ] {
        assert_eq!(says(Request::get("/"), body), format!("{expected}\n"), "{body}");
    }
}

/// Target, method, the values of X-New and how many X-Gone there are, and the body, as they go on.
type Forwarded = (String, Method, (String, usize), String);

#[test]
fn a_request_is_changed() {
    let changed = |source: &str| {
        let bench = bench("access", &[source]);
        let outcome = bench.request(Request::new(Method::Post, "/old?a=1").header("X-Gone", "1").body("old"));
        assert!(outcome.reply.is_none(), "{source}: {:?} {:?}", outcome.reply, bench.notes());
        let mut target = Vec::new();
        outcome.ex.request.write_forward_target(&mut target);
        let body = match &outcome.ex.request.body {
            crate::exchange::Body::Held(body) => String::from_utf8_lossy(body).into_owned(),
            _ => String::new(),
        };
        let headers = (outcome.forwarded("X-New").join(","), outcome.forwarded("X-Gone").len());
        (String::from_utf8(target).unwrap(), outcome.ex.request.forward_method(), headers, body)
    };
    let same = || ("/old?a=1".to_owned(), Method::Post, (String::new(), 1), "old".to_owned());
    let cases: [(&str, &dyn Fn(&mut Forwarded)); 9] = [
        ("ctx.var.upstream_uri = '/new?b=2'", &|seen| seen.0 = "/new?b=2".into()),
        ("ngx.var.upstream_uri = 'a b\\r\\nX: 1'", &|seen| seen.0 = "/a%20b%0D%0AX:%201".into()),
        ("ngx.req.set_uri('/n?w')", &|seen| seen.0 = "/n%3Fw?a=1".into()),
        ("ngx.req.set_uri_args({c = 'd e'})", &|seen| seen.0 = "/old?c=d%20e".into()),
        ("core.request.set_uri_args(ctx, 'q')", &|seen| seen.0 = "/old?q".into()),
        ("ngx.req.set_method(ngx.HTTP_PUT)", &|seen| seen.1 = Method::Put),
        ("core.request.set_header(ctx, 'X-New', {'1', '2'})", &|seen| seen.2.0 = "1,2".into()),
        ("ngx.req.set_header('X-Gone', nil)", &|seen| seen.2.1 = 0),
        ("ngx.req.read_body(); ngx.req.set_body_data(ngx.req.get_body_data() .. 'er')", &|seen| {
            seen.3 = "older".into()
        }),
    ];
    for (source, expect) in cases {
        let mut expected = same();
        expect(&mut expected);
        let source = format!("return function(conf, ctx) local core = require('apisix.core') {source} end");
        assert_eq!(changed(&source), expected, "{source}");
    }
}

#[test]
fn nothing_gets_out_that_would_be_read_as_something_else() {
    for source in [
        "ngx.req.set_header('X-A', 'a\\r\\nX-B: 1')",
        "ngx.req.set_header('X A', 'a')",
        "ngx.req.set_header('Content-Length', '5')",
        "ngx.header['Transfer-Encoding'] = 'chunked'",
        "ngx.header.x_a = 'a\\nb'",
        "ctx.var.upstream_host = 'a b'",
        "ngx.req.set_method('GE T')",
        "ngx.status = 99",
        "ngx.var.remote_addr = '1.1.1.1'",
    ] {
        let bench = bench("access", &[&format!("return function(conf, ctx) {source} end")]);
        bench.request(Request::get("/")).replies(500, "");
        assert_eq!(bench.notes().len(), 1, "{source}");
    }
}

#[test]
fn what_runs_away_costs_its_request_alone() {
    const SOURCE: &str = "local n = 0
        return function(_, ctx)
          n += 1
          local what = ctx.var.arg_do
          if what == 'loop' then while true do end end
          if what == 'catch' then while true do pcall(function() while true do end end) end end
          if what == 'long' then for _ = 1, 100000 do string.rep('x', 1000000) end end
          if what == 'recurse' then local function f() return 1 + f() end; f() end
          if what == 'grow' then local s = 'x'; while true do s = s .. s end end
          if what == 'fill' then local t = {}; while true do table.insert(t, string.rep('x', 16000000 + #t)) end end
          return 200, n
        end";
    for (what, why) in [
        ("loop", "200000 steps"),
        ("catch", "200000 steps"),
        ("long", "50 ms of processor time"),
        ("recurse", "stack overflow"),
        ("grow", "memory"),
        ("fill", "memory"),
    ] {
        let bench = bench("access", &[SOURCE]);
        bench.request(Request::get(&format!("/?do={what}"))).replies(500, "");
        let notes = bench.notes();
        assert!(notes.len() == 1 && notes[0].contains(why), "{what}: {notes:?}");
        // The same interpreter goes on, with what it remembered.
        bench.request(Request::get("/")).replies(200, "2");
        // Faults that come thick and fast are told once a second.
        bench.request(Request::get(&format!("/?do={what}"))).replies(500, "");
        assert!(bench.notes().len() <= 1);
    }
}

#[test]
fn functions_reach_nothing_of_the_machine_and_nothing_of_each_other() {
    for name in [
        "io",
        "os.execute",
        "os.getenv",
        "os.remove",
        "loadstring",
        "collectgarbage",
        "dofile",
        "package",
        "ffi",
        "jit",
    ] {
        let source = format!(
            "return function() local at = getfenv and _G or _G; for part in string.gmatch('{name}', '[^.]+') do at = at and at[part] end; return 200, tostring(at) end"
        );
        bench("access", &[&source]).request(Request::get("/")).replies(200, "nil");
    }
    let mut desk = Desk::new();
    let one: Bench<Pre> = desk
        .compile(
            "routes/1",
            &config("access", &["mine = 1 return function() mine += 1; return 200, mine end"]),
        )
        .unwrap();
    let other: Bench<Pre> = desk
        .compile("routes/2", &config("access", &["return function() return 200, tostring(mine) end"]))
        .unwrap();
    one.request(Request::get("/")).replies(200, "2");
    one.request(Request::get("/")).replies(200, "3");
    other.request(Request::get("/")).replies(200, "nil");
    bench("access", &["return function() string.format = nil end"])
        .request(Request::get("/"))
        .replies(500, "");
}

#[test]
fn both_plugins_of_a_request_share_its_ctx() {
    let mut desk = Desk::new();
    let pre: Bench<Pre> = desk
        .compile(
            "routes/1",
            &config(
                "rewrite",
                &["return function(_, ctx) ctx.user = {name = 'jack'}; ctx.var.mine = 'm' end"],
            ),
        )
        .unwrap();
    let post: Bench<ServerlessPostFunction> = desk
        .compile(
            "routes/1",
            &config("access", &["return function(_, ctx) return 200, ctx.user.name .. ctx.var.mine end"]),
        )
        .unwrap();
    let outcome = pre.request(Request::get("/")).passes();
    post.run(outcome.ex).replies(200, "jackm");
    let fresh = bench("access", &["return function(_, ctx) return 200, tostring(ctx.user) end"]);
    fresh.request(Request::get("/")).replies(200, "nil");
}

#[test]
fn a_response_is_changed() {
    let head = bench(
        "header_filter",
        &["return function(_, ctx)
             ngx.header['X-Seen'] = ngx.header['Content-Type'] .. ngx.status .. require('apisix.core').response.get_response_source(ctx)
             ngx.header['X-Old'] = nil
             ngx.status = 201
           end"],
    );
    let answer = head.response(200, &[("Content-Type", "text/plain"), ("X-Old", "1")], b"body");
    assert_eq!((answer.status(), answer.header("X-Seen").as_str()), (201, "text/plain200upstream"));
    assert_eq!((answer.header("X-Old").as_str(), answer.text().as_str()), ("", "body"));

    let body = bench(
        "body_filter",
        &["return function() ngx.arg[1] = string.upper(ngx.arg[1]) .. (ngx.arg[2] and '!' or '') end"],
    );
    let answer = body.response(200, &[("Content-Length", "4")], b"body");
    assert_eq!((answer.text().as_str(), answer.header("Content-Length").as_str()), ("BODY!", ""));

    let early = bench(
        "access",
        &[
            "return function() require('apisix.core').response.set_header('X-Early', 'a'); ngx.resp.add_header('X-Early', 'b') end",
        ],
    );
    let answer = early.response(200, &[("X-Early", "upstream's")], b"");
    assert_eq!(answer.header("X-Early"), "a | b");
}

#[test]
fn lines_go_to_the_log() {
    let bench = bench(
        "log",
        &[
            "return function(_, ctx) ngx.log(ngx.WARN, 'status ', ctx.var.status, ' a\\nb'); require('apisix.core').log.error({'x'}, nil) end",
        ],
    );
    bench.response(204, &[], b"");
    assert_eq!(bench.notes(), ["status 204 a b", "xnil"]);
    let failing = bench_of_log("return function() error('no') end");
    failing.response(200, &[], b"");
    let notes = failing.notes();
    assert!(
        notes.len() == 1 && notes[0].contains("a function of phase log failed") && notes[0].contains("no"),
        "{notes:?}"
    );
}

fn bench_of_log(source: &str) -> Bench<Pre> {
    bench("log", &[source])
}

#[test]
fn who_made_the_response_is_told_in_the_models_words() {
    for (source, word) in
        [(Source::Upstream, "upstream"), (Source::Plugin("key-auth"), "apisix"), (Source::Gateway, "nginx")]
    {
        let request = Request::get("/").with(|ex| ex.response.source = source);
        assert_eq!(says(request, "core.response.get_response_source(ctx)"), format!("{word}\n"));
    }
}

#[test]
fn schema_and_compile_agree() {
    agree::<Pre>(
        &[
            r#"{"functions": ["return function() end"]}"#,
            r#"{"phase": "log", "functions": ["return function() end"]}"#,
        ],
        &[
            ("{}", "functions"),
            (r#"{"functions": []}"#, "functions"),
            (r#"{"functions": [1]}"#, "functions"),
            (r#"{"functions": ["return function() end"], "phase": "body"}"#, "phase"),
            (r#"{"functions": ["return function() end"], "phases": "log"}"#, "phases"),
        ],
    );
    for (source, words) in [
        ("local a = 123;", "functions[0]: only accept Lua function, the input code type is nil"),
        ("a", "functions[0]: failed to loadstring: "),
        ("error('at once')", "functions[0]: pcall error: "),
        ("while true do end", "steps"),
        ("return 5", "the input code type is"),
    ] {
        refuses::<Pre>(&config("access", &[source]), words);
    }
}
