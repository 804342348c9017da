//! Lists, page by page.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::api::{Api, Reply};
use super::error::CliError;
use super::model::Links;
use super::output;

/// How much of a list.
#[derive(clap::Args, Default)]
pub(super) struct Paging {
    /// How many; with --all, how many a page
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<u32>,
    /// All pages
    #[arg(long)]
    pub(super) all: bool,
}

impl Paging {
    /// The list's URL with the limit in its query; the links to further pages carry it by themselves.
    pub(super) fn apply(&self, mut url: Url) -> Url {
        if let Some(limit) = self.limit {
            url.query_pairs_mut().append_pair("limit", &limit.to_string());
        }
        url
    }
}

#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct Page<T> {
    #[serde(default = "Vec::new")]
    items: Vec<T>,
    #[serde(rename = "_links", default)]
    links: Links,
}

/// The items of the first page, or of all; with `json` each page is printed as it comes, and none are given back.
pub(super) async fn read<T: DeserializeOwned>(
    api: &Api,
    mut href: String,
    all: bool,
    json: bool,
) -> Result<Vec<T>, CliError> {
    let mut items = Vec::new();
    loop {
        let page: Reply<Page<T>> = api.get(&href).await?;
        if json {
            output::json(&page.text)?;
        }
        let next = page.body.links.find("next").map(str::to_owned);
        let is_empty = page.body.items.is_empty();
        if !json {
            items.extend(page.body.items);
        }
        match next {
            // A page that leads to itself would go on for ever.
            Some(next) if all && next != href => href = next,
            next => {
                if next.is_some() && !all && !json && !is_empty {
                    output::note("there are more: --all lists them all");
                }
                return Ok(items);
            }
        }
    }
}
