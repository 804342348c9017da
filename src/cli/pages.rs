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
    /// All pages; with --json, each is a JSON document on a line of its own
    #[arg(long)]
    pub(super) all: bool,
}

impl Paging {
    /// The whole of a list.
    pub(super) const ALL: Self = Self { limit: None, all: true };
}

#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct Page<T> {
    #[serde(default = "Vec::new")]
    items: Vec<T>,
    #[serde(rename = "_links", default)]
    links: Links,
}

/// Prints a list of `what`: as a table, or its pages as they come.
pub(super) async fn print<T: DeserializeOwned>(
    api: &Api,
    list: Url,
    paging: &Paging,
    json: bool,
    what: &str,
    table: impl FnOnce(&[T]) -> String,
) -> Result<(), CliError> {
    let items = read(api, list, paging, json).await?;
    if json {
        return Ok(());
    }
    if items.is_empty() {
        output::note(&format!("no {what}"));
        return Ok(());
    }
    output::text(&table(&items))
}

/// The items of the first page, or of all; with `json` each page is printed as it comes, and none are given back.
pub(super) async fn read<T: DeserializeOwned>(
    api: &Api,
    mut list: Url,
    paging: &Paging,
    json: bool,
) -> Result<Vec<T>, CliError> {
    // The links to further pages carry it by themselves.
    if let Some(limit) = paging.limit {
        list.query_pairs_mut().append_pair("limit", &limit.to_string());
    }
    let mut href = String::from(list);
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
            Some(next) if paging.all && next != href => href = next,
            next => {
                if next.is_some() && !paging.all && !json && !is_empty {
                    output::note("there are more: --all lists them all");
                }
                return Ok(items);
            }
        }
    }
}
