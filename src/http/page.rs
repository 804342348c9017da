//! Lists in pages. A cursor says where a list goes on; clients hand it back as they got it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;
use warp::reply::Response;

use super::problem::Problem;
use super::query::{Query, invalid};
use super::represent::json;
use crate::service::view::{LinkBuilder, Links};

/// The part of a cursor that says which list it is of.
const CHECK_BYTES: usize = 6;

#[derive(Serialize, ToSchema)]
pub(super) struct List<T> {
    items: Vec<T>,
    page: PageInfo,
    #[serde(rename = "_links")]
    links: Links,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Page)]
pub(super) struct PageInfo {
    limit: usize,
    next_cursor: Option<String>,
    has_more: bool,
}

/// A page that is asked for: `?limit=&cursor=` of a list with these filters.
pub(super) struct Page<'a> {
    path: &'a str,
    filters: Vec<(&'static str, String)>,
    pub(super) limit: usize,
    cursor: Option<String>,
}

impl<'a> Page<'a> {
    pub(super) fn of(path: &'a str, query: &Query, filters: &[&'static str]) -> Result<Self, Problem> {
        let given = filters.iter().filter_map(|name| Some((*name, query.get(name)?.to_owned())));
        let cursor = query.get("cursor").map(str::to_owned);
        Ok(Self { path, filters: given.collect(), limit: query.limit()?, cursor })
    }

    /// Where the page before ended. A damaged cursor, or one of another list, would else begin anywhere, or look like
    /// the end.
    pub(super) fn place(&self) -> Result<Option<Vec<u8>>, Problem> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
        let place = bytes.as_ref().and_then(|bytes| bytes.split_first_chunk());
        let place =
            place.filter(|(check, place)| **check == self.check(place)).map(|(_, place)| place.to_vec());
        let detail = "the next_cursor of the page before, of the same list with the same filters";
        place.map(Some).ok_or_else(|| invalid("cursor", "not_a_cursor", detail))
    }

    /// The same as the bytes of an id.
    pub(super) fn id(&self) -> Result<Option<[u8; 16]>, Problem> {
        // The check has shown that it is what was given out.
        Ok(self.place()?.and_then(|place| place.try_into().ok()))
    }

    /// The page; `next` is where the list goes on, if it does.
    pub(super) fn answer<T: Serialize>(
        &self,
        items: Vec<T>,
        next: Option<&[u8]>,
        links: LinkBuilder<'_>,
    ) -> Response {
        let next_cursor = next.map(|place| self.cursor(place));
        let mut links = links.get("self", &self.at(self.cursor.as_deref())).get("first", &self.at(None));
        if let Some(cursor) = &next_cursor {
            links = links.get("next", &self.at(Some(cursor)));
        }
        let page = PageInfo { limit: self.limit, has_more: next_cursor.is_some(), next_cursor };
        json(&List { items, page, links: links.build() })
    }

    /// What leads on from this place.
    pub(super) fn cursor(&self, place: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode([&self.check(place), place].concat())
    }

    fn at(&self, cursor: Option<&str>) -> String {
        let mut pairs = url::form_urlencoded::Serializer::new(String::new());
        pairs.append_pair("limit", &self.limit.to_string());
        pairs.extend_pairs(&self.filters);
        pairs.extend_pairs(cursor.map(|cursor| ("cursor", cursor)));
        format!("{}?{}", self.path, pairs.finish())
    }

    /// Not a secret: it tells lists apart, and finds what was mistyped.
    fn check(&self, place: &[u8]) -> [u8; CHECK_BYTES] {
        let list = format!("{} {:?} ", self.path, self.filters);
        let mut check = [0; CHECK_BYTES];
        check
            .copy_from_slice(&Sha256::new().chain_update(list).chain_update(place).finalize()[..CHECK_BYTES]);
        check
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &str) -> Page<'static> {
        let query = Query::parse(query, &["limit", "cursor", "state"]).unwrap();
        Page::of("/list", &query, &["state"]).unwrap()
    }

    fn cursor_of(page: &Page<'_>, place: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode([&page.check(place), place].concat())
    }

    #[test]
    fn a_cursor_leads_on_in_its_own_list_alone() {
        let cursor = cursor_of(&page("state=a"), b"place");
        let read = |query: &str| page(query).place().ok().flatten();
        assert_eq!(read(&format!("state=a&cursor={cursor}")).as_deref(), Some(&b"place"[..]));
        // Another limit is the same list.
        assert!(read(&format!("state=a&limit=7&cursor={cursor}")).is_some());
        for other in [
            format!("state=b&cursor={cursor}"),
            format!("cursor={cursor}"),
            format!("state=a&cursor={}", &cursor[..cursor.len() - 4]),
            format!("state=a&cursor={}", cursor.to_lowercase()),
            "state=a&cursor=".to_owned(),
            "state=a&cursor=AAAA".to_owned(),
            "state=a&cursor=!".to_owned(),
        ] {
            assert!(page(&other).place().is_err(), "{other}");
        }
        assert_eq!(page("").place().unwrap(), None);
    }
}
