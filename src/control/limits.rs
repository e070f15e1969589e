//! `GET /v1/limits`: what is left of limits; the answer is the compiler's, who asks the plugins.

use serde_json::Value;

use super::ask::Booth;
use crate::base::text::form_decode;
use crate::model::nearest::hint;
use crate::snapshot::Compiler;
use crate::snapshot::standing::Sought;

/// What may be said.
const PARAMETERS: [&str; 4] = ["key", "route", "consumer", "stream_route"];

/// The answer, or a status and why there is none.
pub(crate) async fn answer(booth: &Booth, query: Option<&str>) -> Result<Value, (u16, String)> {
    let sought = sought_of(query.unwrap_or_default()).map_err(|fault| (400, fault))?;
    let told = booth.ask(move |compiler: &Compiler| compiler.standing(&sought)).await;
    told.ok_or_else(|| (503, "the gateway is ending".to_owned()))?.map_err(|none| (404, none))
}

fn sought_of(query: &str) -> Result<Sought, String> {
    let mut sought = Sought::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let place = match name {
            "key" => &mut sought.key,
            "route" => &mut sought.route,
            "consumer" => &mut sought.consumer,
            "stream_route" => &mut sought.stream_route,
            _ => {
                let hint = hint(name, PARAMETERS);
                return Err(format!("expected one of {}, got {name}{hint}", PARAMETERS.join(", ")));
            }
        };
        if place.is_some() {
            return Err(format!("{name}: expected once, got several"));
        }
        let mut text = Vec::new();
        form_decode(value.as_bytes(), &mut text);
        *place = Some(String::from_utf8_lossy(&text).into_owned());
    }
    Ok(sought)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_and_its_faults_are_told() {
        let sought = sought_of("key=a%20b&route=r-1").unwrap();
        assert_eq!(
            (sought.key.as_deref(), sought.route.as_deref(), sought.consumer),
            (Some("a b"), Some("r-1"), None)
        );
        assert_eq!(sought_of("").unwrap(), Sought::default());
        for (query, expect) in [
            ("kye=a", "expected one of key, route, consumer, stream_route, got kye; did you mean \"key\"?"),
            ("key=a&key=b", "key: expected once, got several"),
        ] {
            assert_eq!(sought_of(query).unwrap_err(), expect);
        }
    }
}
