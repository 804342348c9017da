//! For whom something is represented: what its links begin with, and which of them are its to follow.

use percent_encoding::percent_decode_str;

use crate::domain::client::{ClientId, Role};

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody, without a key.
    Open,
    /// Every client, and operators.
    Clients,
    /// Operators alone.
    Operators,
}

impl Access {
    /// Whether who has this role may; without a key there is none.
    #[must_use]
    pub fn admits(self, role: Option<Role>) -> bool {
        match self {
            Self::Open => true,
            Self::Clients => role.is_some(),
            Self::Operators => role == Some(Role::Operator),
        }
    }
}

/// Which routes are for others than every client, as the table of routes declares it: one declaration guards the
/// routes and decides on the links to them.
#[derive(Debug, Default)]
pub struct Rules(Vec<(&'static str, String, Access)>);

impl Rules {
    /// The rules of these routes, each a method and a path with `{name}` for its parameters.
    #[must_use]
    pub fn new<'a>(routes: impl IntoIterator<Item = (&'static str, &'a str, Access)>) -> Self {
        let others = routes.into_iter().filter(|(_, _, access)| *access != Access::Clients);
        Self(others.map(|(path, method, access)| (path, method.to_owned(), access)).collect())
    }

    fn access(&self, method: &str, path: &str) -> Access {
        let path = path.split('?').next().unwrap_or_default();
        let fits = |pattern: &str, of: &str| of == method && parameters(pattern, path).is_some();
        let rule = self.0.iter().find(|(pattern, of, _)| fits(pattern, of));
        rule.map_or(Access::Clients, |(_, _, access)| *access)
    }
}

/// The reader of a representation.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    base: &'a str,
    who: Who<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Who<'a> {
    /// Somebody who asked.
    Caller(Option<Role>, &'a Rules),
    /// Whoever reads an event, at any time.
    OfEvents,
}

impl<'a> Reader<'a> {
    /// A caller in this role, under this public base URL.
    #[must_use]
    pub fn caller(role: Option<Role>, rules: &'a Rules, base: &'a str) -> Self {
        Self { base, who: Who::Caller(role, rules) }
    }

    /// Who reads events, which say the same to everybody: what a client may do with its job. What can be done about a
    /// delivery or a destination, these say themselves.
    #[must_use]
    pub fn of_events(base: &'a str) -> Self {
        Self { base, who: Who::OfEvents }
    }

    /// What every link begins with, without a slash at the end.
    #[must_use]
    pub fn base(&self) -> &'a str {
        self.base
    }

    /// Whether a link with this method to this path is the reader's to follow.
    pub(super) fn may(&self, method: &str, path: &str) -> bool {
        match self.who {
            Who::Caller(Some(Role::Operator), _) => true,
            Who::Caller(role, rules) => rules.access(method, path).admits(role),
            // Events of before there were signed links keep their bytes.
            Who::OfEvents => method == "GET" || path.starts_with("/v1/jobs/") && !path.ends_with("/links"),
        }
    }

    /// Whose it is, for those who see more than their own.
    pub(super) fn owner(&self, client: &ClientId) -> Option<String> {
        match self.who {
            Who::Caller(Some(Role::Operator), _) => Some(client.as_str().to_owned()),
            _ => None,
        }
    }
}

/// The parameters of `path` if it is of the form `pattern`; a slash at the end makes it another path.
#[must_use]
pub fn parameters(pattern: &str, path: &str) -> Option<Vec<String>> {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    let mut params = Vec::new();
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return Some(params),
            (Some(expected), Some(segment)) => {
                let segment = percent_decode_str(segment).decode_utf8().ok()?;
                if expected.starts_with('{') && !segment.is_empty() {
                    params.push(segment.into_owned());
                } else if expected != segment {
                    return None;
                }
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::LinkBuilder;
    use super::*;

    #[test]
    fn paths_match_whole_and_decoded() {
        let job = "/v1/jobs/{id}";
        assert_eq!(parameters(job, "/v1/jobs/job_1"), Some(vec!["job_1".to_owned()]));
        assert_eq!(parameters(job, "/v1/jobs/job%5F1"), Some(vec!["job_1".to_owned()]));
        assert_eq!(parameters("/", "/"), Some(Vec::new()));
        for other in [
            "/v1/jobs",
            "/v1/jobs/",
            "/v1/jobs/a/b",
            "/v1/jobs/a/",
            "/v2/jobs/a",
            "/v1/jobs/%ff",
            "//v1/jobs/a",
        ] {
            assert_eq!(parameters(job, other), None, "{other}");
        }
    }

    #[test]
    fn links_are_those_that_the_reader_may_follow() {
        let rules = Rules::new([
            ("/", "GET", Access::Open),
            ("/v1/things/{id}", "GET", Access::Clients),
            ("/v1/things/{id}/stop", "POST", Access::Operators),
        ]);
        let links = |reader| {
            let links = LinkBuilder::new(reader).get("root", "/").get("thing", "/v1/things/1?a=b");
            let links = links.post("stop", "/v1/things/1/stop").get("template", "/v1/things/{id}").build();
            links.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(links(Reader::caller(None, &rules, "")), ["root"]);
        assert_eq!(links(Reader::caller(Some(Role::Client), &rules, "")), ["root", "template", "thing"]);
        let all = ["root", "stop", "template", "thing"];
        assert_eq!(links(Reader::caller(Some(Role::Operator), &rules, "")), all);
        assert_eq!(links(Reader::of_events("")), ["root", "template", "thing"]);
    }
}
