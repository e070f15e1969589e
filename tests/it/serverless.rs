//! Functions in Lua on real requests: what they answer and change, and what one that goes wrong costs others.

use super::kit::{Gateway, Origin, Seen, Setup};

on_both_drivers!(
    functions_answer_and_change_what_passes,
    a_body_is_there_for_functions_and_what_they_make_of_it_goes_on,
    a_function_that_runs_away_costs_its_request_and_not_the_core,
    what_a_function_keeps_lasts_until_it_is_written_anew,
);

/// A gateway of one core whose route runs these, given as YAML.
fn running(origin: &Origin, plugins: &str) -> Setup {
    Gateway::routing("/*", [origin]).route(&format!("plugins:\n{plugins}")).cores(1)
}

fn functions_answer_and_change_what_passes() {
    let origin = Origin::answering(|seen: &Seen| {
        let body = seen.target.clone();
        format!("HTTP/1.1 200 OK\r\nX-Old: 1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    });
    let gateway = running(
        &origin,
        r#"
  serverless-pre-function:
    phase: rewrite
    functions:
      - |
        local core = require("apisix.core")
        return function(conf, ctx)
          if ctx.var.arg_token ~= "let-me-in" then
            core.response.set_header("X-Why", "token")
            return 403, {message = "who are you?"}
          end
          ctx.var.upstream_uri = "/moved?from=" .. ngx.escape_uri(ctx.var.uri)
          core.request.set_header(ctx, "X-Route", ctx.var.route_id)
        end
  serverless-post-function:
    phase: header_filter
    functions:
      - |
        return function()
          ngx.header["X-Old"] = nil
          ngx.header["X-New"] = {"1", "2"}
        end
"#,
    )
    .start();
    let mut client = gateway.client();
    for _ in 0..2 {
        let refused = client.get("/a");
        refused.expect(403, "{\"message\":\"who are you?\"}\n");
        assert_eq!(refused.header("X-Why"), Some("token"));
        let passed = client.get("/a/b?token=let-me-in");
        passed.expect(200, "/moved?from=%2Fa%2Fb");
        assert_eq!((passed.header("X-Old"), passed.values("X-New")), (None, vec!["1", "2"]));
    }
    assert_eq!(origin.requests(), 2);
    assert_eq!(origin.seen()[0].header("X-Route"), Some("1"));
}

fn a_body_is_there_for_functions_and_what_they_make_of_it_goes_on() {
    let origin = Origin::answering(|seen: &Seen| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}",
            seen.body.len(),
            String::from_utf8_lossy(&seen.body)
        )
    });
    for phase in ["rewrite", "access", "before_proxy"] {
        body_in(&origin, phase);
    }
}

fn body_in(origin: &Origin, phase: &str) {
    let plugins = r#"
  serverless-pre-function:
    phase: PHASE
    functions:
      - |
        local core = require("apisix.core")
        return function(conf, ctx)
          local order = core.json.decode(core.request.get_body() or "{}")
          if not order or not order.count then
            return 400, {message = "no count"}
          end
          order.count = order.count * 2
          ngx.req.set_body_data(core.json.encode(order))
        end
  serverless-post-function:
    phase: body_filter
    functions:
      - return function() ngx.arg[1] = ngx.arg[1] .. (ngx.arg[2] and "\n" or "") end
"#;
    let gateway = running(origin, &plugins.replace("PHASE", phase)).start();
    origin.forget();
    let mut client = gateway.client();
    client.post("/", br#"{"count": 21}"#).expect(200, "{\"count\":42}\n");
    client.post("/", b"{}").expect(400, "{\"message\":\"no count\"}\n\n");
    client.get("/").expect(400, "{\"message\":\"no count\"}\n\n");
    client.post("/", br#"{"count": 1}"#).expect(200, "{\"count\":2}\n");
    assert_eq!(origin.seen()[0].header("Content-Length"), Some("12"));
}

fn a_function_that_runs_away_costs_its_request_and_not_the_core() {
    let origin = Origin::replying("fine");
    let gateway = running(
        &origin,
        r#"
  serverless-pre-function:
    functions:
      - |
        return function(conf, ctx)
          if ctx.var.uri == "/loop" then while true do end end
          if ctx.var.uri == "/grow" then local s = "x" while true do s = s .. s end end
          if ctx.var.uri == "/fail" then error("as asked") end
        end
"#,
    )
    .start();
    let mut client = gateway.client();
    for path in ["/loop", "/grow", "/fail", "/loop"] {
        client.get(path).expect_status(500);
        client.get("/").expect(200, "fine");
    }
    assert_eq!(origin.requests(), 4, "what failed was not passed on");
    gateway.wait_said(&["a function of phase access failed", "more than 200000 steps"]);
}

fn what_a_function_keeps_lasts_until_it_is_written_anew() {
    let origin = Origin::replying("");
    let resources = |step: u32, other: &str| {
        let count = format!("local n = 0 return function() n += {step} return 200, tostring(n) end");
        let other = format!("return function() return 200, '{other}' end");
        format!(
            "routes:
  - {{id: 1, uri: /count, upstream: {{nodes: {{ORIGIN: 1}}}}, plugins: {{serverless-pre-function: {{functions: [\"{count}\"]}}}}}}
  - {{id: 2, uri: /other, upstream: {{nodes: {{ORIGIN: 1}}}}, plugins: {{serverless-pre-function: {{functions: [\"{other}\"]}}}}}}
"
        )
    };
    let gateway = Gateway::resources(&resources(1, "one"), &[("ORIGIN", &origin)]).cores(1).start();
    let serve = |step, other: &str| {
        let serves = |gateway: &Gateway| gateway.get("/other").text() == other;
        gateway.reload_until(&resources(step, other), &[("ORIGIN", &origin)], serves);
    };
    let counts = |expected: [u32; 2]| {
        for count in expected {
            gateway.get("/count").expect(200, &count.to_string());
        }
    };
    counts([1, 2]);
    serve(1, "two");
    counts([3, 4]);
    serve(10, "three");
    counts([10, 20]);
}
