//! `darkroom clients`: who may call, and with which keys.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use super::api::{Api, Reply, Target};
use super::error::CliError;
use super::model::Links;
use super::pages::{self, Paging};
use super::{output, serve, table};
use crate::app::clients::{self, Change, Outcome};
use crate::clock::Clock;
use crate::config::{Config, Sources};
use crate::domain::client::{Client, ClientId, ClientLimits, Role};
use crate::domain::id::ApiKeyId;

const NOTES: &str = "\
Examples:
  darkroom clients create ops --role operator > ops-key     in ./darkroom-data, before the service starts
  darkroom clients create shop --data-dir /var/lib/darkroom > shop-key
  DARKROOM_TOKEN=$(cat ops-key) darkroom clients list        asks the service that runs

A data folder is changed directly, as long as no service runs on it: the one of --data-dir or --config, or \
./darkroom-data where neither a service is named. With --url, --token or their variables, the service is asked, as an \
operator; --data-dir and --config go before these.";

const CREATE_NOTES: &str = "\
The key is printed, here and never again: only its hash is kept. A client sees its own jobs; an operator sees those of \
all, and may replay, pause and resume, and create clients.";

const REVOKE_NOTES: &str = "\
It takes effect at once. What the client has done stays; jobs that wait are worked on. Its name is not given away again.

To change a key: clients add-key NAME, give the new key to its programs, then clients revoke NAME --key OLD_ID.";

/// What to do with clients.
#[derive(clap::Args)]
#[command(after_help = NOTES)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    /// The data folder, on which no service runs
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// A configuration file that names it
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Create a client, and print its key
    #[command(after_help = CREATE_NOTES)]
    Create(Create),
    /// List clients and the ends of their keys
    List(Paging),
    /// Make one more key for a client, and print it
    AddKey {
        /// The client's name
        name: ClientId,
    },
    /// Take all keys from a client, for good; or one of them
    #[command(after_help = REVOKE_NOTES)]
    Revoke {
        /// The client's name
        name: ClientId,
        /// The id of the one key to take away
        #[arg(long, value_name = "ID")]
        key: Option<ApiKeyId>,
    },
}

#[derive(clap::Args)]
struct Create {
    /// Its name: 1 to 64 characters of a-z, 0-9, - and _
    name: ClientId,
    /// What it may do
    #[arg(long, value_enum, default_value = "client")]
    role: RoleArg,
    /// The most requests in a minute; 0 is no limit [default: limits.requests_per_minute]
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<u32>,
    /// The most jobs of its that wait at once; 0 is no limit [default: limits.waiting_jobs]
    #[arg(long, value_name = "N")]
    waiting_jobs: Option<u32>,
    /// The most bytes of pictures in a minute; 0 is no limit [default: limits.upload_bytes_per_minute]
    #[arg(long, value_name = "BYTES")]
    upload_bytes_per_minute: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum RoleArg {
    Client,
    Operator,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Client => Self::Client,
            RoleArg::Operator => Self::Operator,
        }
    }
}

/// A client, as the service and this program tell of it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Row {
    name: String,
    role: String,
    state: String,
    created_at: String,
    revoked_at: Option<String>,
    limits: ClientLimits,
    keys: Vec<KeyRow>,
    #[serde(rename = "_links", skip_serializing)]
    links: Links,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct KeyRow {
    id: String,
    ends_with: String,
    created_at: String,
    #[serde(rename = "_links", skip_serializing)]
    links: Links,
}

/// A key that was just made.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct NewKey {
    key: String,
    key_id: String,
    client: Row,
}

impl From<&Client> for Row {
    fn from(client: &Client) -> Self {
        let time = |at| format!("{at:.3}");
        let key = |key: &crate::domain::api_key::KeyRecord| KeyRow {
            id: key.id.to_string(),
            ends_with: key.hint.clone(),
            created_at: time(key.created_at),
            links: Links::default(),
        };
        Self {
            name: client.name.as_str().to_owned(),
            role: client.role.as_str().to_owned(),
            state: if client.revoked_at.is_some() { "revoked" } else { "active" }.to_owned(),
            created_at: time(client.created_at),
            revoked_at: client.revoked_at.map(time),
            limits: client.limits,
            keys: client.keys.iter().map(key).collect(),
            links: Links::default(),
        }
    }
}

pub(super) async fn run(args: Args, target: &Target) -> Result<(), CliError> {
    let Args { command, data_dir, config, json } = args;
    if data_dir.is_none() && config.is_none() && target.is_named() {
        return ask(command, target, json).await;
    }
    let flags = data_dir.map(|folder| ("storage.data_dir", folder)).into_iter().collect();
    let config =
        Config::load(Sources { dev: false, file: config, environment: serve::environment()?, flags })?;
    let paged = matches!(&command, Command::List(paging) if paging.limit.is_some() || paging.all);
    if paged {
        return Err(CliError::Usage("--limit and --all are for the list of a service (--url)".to_owned()));
    }
    let Outcome { clients, key } = clients::change(config, Clock::system(), command.into()).await?;
    let rows: Vec<_> = clients.iter().map(Row::from).collect();
    match (key, <[Row; 1]>::try_from(rows)) {
        (Some((id, key)), Ok([client])) => {
            let new = NewKey { key: key.expose_text().to_owned(), key_id: id.to_string(), client };
            print_key(&new, json.then(|| as_json(&new)))
        }
        (_, rows) => print(&rows.map_or_else(|rows| rows, |[row]| vec![row]), json),
    }
}

impl From<Command> for Change {
    fn from(command: Command) -> Self {
        match command {
            Command::List(_) => Self::List,
            Command::Create(create) => Self::Create(create.name.clone(), create.role.into(), create.limits()),
            Command::AddKey { name } => Self::AddKey(name),
            Command::Revoke { name, key: None } => Self::Revoke(name),
            Command::Revoke { name, key: Some(id) } => Self::RevokeKey(name, id),
        }
    }
}

impl Create {
    fn limits(&self) -> ClientLimits {
        ClientLimits {
            requests_per_minute: self.requests_per_minute,
            waiting_jobs: self.waiting_jobs,
            upload_bytes_per_minute: self.upload_bytes_per_minute,
        }
    }
}

/// The same, by a service that runs.
async fn ask(command: Command, target: &Target, json: bool) -> Result<(), CliError> {
    let api = Api::new(target)?;
    let root = api.root().await?;
    let list = root.href("clients")?;
    match command {
        Command::List(paging) => {
            let list = api.resolve(list)?;
            pages::print(&api, list, &paging, json, "clients", |rows: &[Row]| table_of(rows)).await
        }
        Command::Create(create) => {
            let wanted = serde_json::json!({
                "name": create.name,
                "role": Role::from(create.role).as_str(),
                "limits": create.limits(),
            });
            let new: Reply<NewKey> = api.post_json(list, &wanted).await?;
            print_key(&new.body, json.then_some(new.text))
        }
        Command::AddKey { name } => {
            let client: Reply<Row> = api.get(&root.expand("client", "name", name.as_str())?).await?;
            let href = client.body.links.action("add_key", name.as_str(), &client.body.state)?.to_owned();
            let new: Reply<NewKey> = api.post(&href).await?;
            print_key(&new.body, json.then_some(new.text))
        }
        Command::Revoke { name, key } => {
            let client: Reply<Row> = api.get(&root.expand("client", "name", name.as_str())?).await?;
            let Some(id) = key else {
                let href = client.body.links.action("revoke", name.as_str(), &client.body.state)?.to_owned();
                let revoked: Reply<Row> = api.post(&href).await?;
                return if json { output::json(&revoked.text) } else { print(&[revoked.body], false) };
            };
            let key = client.body.keys.iter().find(|key| key.id == id.to_string());
            let key = key.ok_or_else(|| CliError::NoSuch(format!("{} has no key {id}", name.as_str())))?;
            api.delete(key.links.href("revoke")?).await?;
            let client: Reply<Row> = api.get(&root.expand("client", "name", name.as_str())?).await?;
            if json { output::json(&client.text) } else { print(&[client.body], false) }
        }
    }
}

fn as_json(of: &impl Serialize) -> String {
    serde_json::to_string(of).unwrap_or_default()
}

/// The key alone on standard output, so that it can go to a file.
fn print_key(new: &NewKey, json: Option<String>) -> Result<(), CliError> {
    let Row { name, role, .. } = &new.client;
    output::note(&format!("{} is a key of {name} ({role}); it is shown this once", new.key_id));
    let printed = json.map_or_else(|| output::line(&new.key), |json| output::json(&json));
    printed.map_err(|error| match error {
        CliError::Output(source) => CliError::KeyUnseen { name: name.clone(), source },
        other => other,
    })
}

fn print(rows: &[Row], json: bool) -> Result<(), CliError> {
    if json {
        return output::json(&as_json(&serde_json::json!({ "items": rows })));
    }
    if rows.is_empty() {
        output::note("no clients");
        return Ok(());
    }
    output::text(&table_of(rows))
}

fn table_of(rows: &[Row]) -> String {
    let lines = rows.iter().flat_map(|row| {
        let line = |key: &str, end: &str| {
            let created = row.created_at.clone();
            [row.name.clone(), row.role.clone(), row.state.clone(), created, key.to_owned(), end.to_owned()]
        };
        let keys: Vec<_> = row.keys.iter().map(|key| line(&key.id, &format!("…{}", key.ends_with))).collect();
        if keys.is_empty() { vec![line("-", "-")] } else { keys }
    });
    table::table(["CLIENT", "ROLE", "STATE", "CREATED", "KEY", "ENDS WITH"], lines)
}
