//! Who may use the Admin API: keys, what each opens, and the one that is made where none is given.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use axum::http::request::Parts;
use subtle::ConstantTimeEq as _;

use crate::model::settings::{AdminRole, AdminSettings};

/// Where the key is kept that was made here.
const FILE: &str = "admin.key";
/// Bytes of chance in it.
const KEY_BYTES: usize = 32;

/// The keys in force.
pub(crate) struct Keys {
    required: bool,
    keys: Vec<(String, String, AdminRole)>,
}

impl Keys {
    /// Those of the settings; else the one in the state's folder, made when there is none. And where it is.
    ///
    /// # Errors
    /// When the folder or the file can not be made or read.
    pub(crate) fn open(settings: &AdminSettings, state: &Path) -> io::Result<(Self, Option<PathBuf>)> {
        let mut keys: Vec<(String, String, AdminRole)> = settings
            .keys
            .iter()
            .map(|key| (key.name.as_str().to_owned(), key.key.expose().to_owned(), key.role))
            .collect();
        let mut kept = None;
        if keys.is_empty() && settings.key_required {
            let path = state.join(FILE);
            keys.push(("admin".to_owned(), read_or_make(&path)?, AdminRole::Admin));
            kept = Some(path);
        }
        Ok((Self { required: settings.key_required, keys }, kept))
    }

    /// Whose request it is, or what is wrong with its key.
    pub(super) fn of(&self, parts: &Parts) -> Result<(String, AdminRole), &'static str> {
        if !self.required {
            return Ok(("anybody".to_owned(), AdminRole::Admin));
        }
        let given = given(parts).ok_or("missing apikey")?;
        let mut found = None;
        for (name, key, role) in &self.keys {
            // All are compared, in constant time: how long it takes tells nothing.
            if bool::from(key.as_bytes().ct_eq(given.as_bytes())) {
                found = Some((name.clone(), *role));
            }
        }
        found.ok_or("wrong apikey")
    }
}

/// The key of a request: a header, else of the query, else a cookie.
fn given(parts: &Parts) -> Option<String> {
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    // Underscores, as clients of APISIX's may write it.
    if let Some(key) = header("x-api-key").or_else(|| header("x_api_key")) {
        return Some(key.to_owned());
    }
    let of_query = parts
        .uri
        .query()
        .and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("api_key=")))
        .map(|key| {
            let mut out = Vec::new();
            crate::base::text::form_decode(key.as_bytes(), &mut out);
            String::from_utf8_lossy(&out).into_owned()
        });
    of_query.or_else(|| {
        header("cookie")?
            .split(';')
            .find_map(|pair| pair.trim().strip_prefix("x_api_key="))
            .map(str::to_owned)
    })
}

fn read_or_make(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Ok(key) if !key.trim().is_empty() => return Ok(key.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut chance = [0_u8; KEY_BYTES];
    getrandom::fill(&mut chance).map_err(io::Error::other)?;
    let key: String = chance.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    writeln!(file, "{key}")?;
    file.sync_all()?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use axum::http::Request;

    use super::*;

    fn parts(request: axum::http::request::Builder) -> Parts {
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn a_key_is_made_once_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state");
        let settings = AdminSettings::default();
        let (first, path) = Keys::open(&settings, &state).expect("made");
        let path = path.expect("kept");
        let (second, _) = Keys::open(&settings, &state).expect("read");
        assert_eq!(first.keys[0].1, second.keys[0].1);
        assert_eq!(first.keys[0].1.len(), 2 * KEY_BYTES);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let (other, _) = Keys::open(&settings, &folder.path().join("other")).expect("made");
        assert_ne!(first.keys[0].1, other.keys[0].1);
    }

    #[test]
    fn a_key_is_taken_from_header_query_or_cookie() {
        let keys =
            Keys { required: true, keys: vec![("ann".to_owned(), "k1".to_owned(), AdminRole::Viewer)] };
        let of = |request| keys.of(&parts(request));
        let ann = Ok(("ann".to_owned(), AdminRole::Viewer));
        assert_eq!(of(Request::get("/").header("X-API-KEY", "k1")), ann);
        assert_eq!(of(Request::get("/?a=b&api_key=k1")), ann);
        assert_eq!(of(Request::get("/?api_key=%6b1")), ann);
        assert_eq!(of(Request::get("/").header("Cookie", "a=b; x_api_key=k1")), ann);
        assert_eq!(of(Request::get("/")), Err("missing apikey"));
        assert_eq!(of(Request::get("/").header("X-API-KEY", "k")), Err("wrong apikey"));
        assert_eq!(of(Request::get("/").header("X-API-KEY", "k11")), Err("wrong apikey"));
    }
}
