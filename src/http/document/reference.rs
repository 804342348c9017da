//! The OpenAPI document as a page: every operation and schema, each with its anchor.

use std::fmt::Write as _;

use serde_json::Value;

use super::html::{escape, prose};

/// The page's body.
pub(super) fn body(document: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let info = &document["info"];
    let mut html =
        format!("<h1>{} {}</h1>\n", escape(&text(&info["title"])), escape(&text(&info["version"])));
    for paragraph in text(&info["description"]).split("\n\n") {
        put(&mut html, format_args!("<p>{}</p>\n", prose(paragraph)));
    }
    let base = text(&document["servers"][0]["url"]);
    put(
        &mut html,
        format_args!(
            "<p>At <code>{}</code>, as <a href=\"openapi.json\">OpenAPI</a>; what is told by itself, as \
         <a href=\"asyncapi.json\">AsyncAPI</a>.</p>\n",
            escape(&base)
        ),
    );
    let tags: Vec<_> =
        document["tags"].as_array().into_iter().flatten().map(|tag| text(&tag["name"])).collect();
    let operations = operations(document);
    html += "<nav><ul>\n";
    for operation in tags.iter().flat_map(|tag| operations.iter().filter(move |it| it.tag == tag)) {
        put(
            &mut html,
            format_args!(
                "<li><a href=\"#{}\">{}</a></li>\n",
                escape(operation.id()),
                escape(&text(&operation.json["summary"]))
            ),
        );
    }
    html += "</ul><p><a href=\"#webhooks\">Webhooks</a> · <a href=\"#schemas\">Schemas</a></p></nav>\n";
    for tag in &tags {
        put(&mut html, format_args!("<h2>{}</h2>\n", escape(tag)));
        for operation in operations.iter().filter(|operation| operation.tag == tag) {
            operation.write(document, &mut html);
        }
    }
    webhooks(document, &mut html);
    schemas(document, &mut html);
    html
}

/// Writing to a string does not fail.
fn put(html: &mut String, arguments: std::fmt::Arguments<'_>) {
    let _ = html.write_fmt(arguments);
}

struct Entry<'a> {
    method: &'a str,
    path: &'a str,
    tag: &'a str,
    json: &'a Value,
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn operations(document: &Value) -> Vec<Entry<'_>> {
    let of_path = |(path, item)| members(item).map(move |(method, json)| (path, method, json));
    let all = members(&document["paths"]).flat_map(of_path);
    all.map(|(path, method, json)| Entry {
        method,
        path,
        tag: json["tags"][0].as_str().unwrap_or_default(),
        json,
    })
    .collect()
}

impl Entry<'_> {
    fn id(&self) -> &str {
        self.json["operationId"].as_str().unwrap_or_default()
    }

    fn write(&self, document: &Value, html: &mut String) {
        let text = |value: &Value| prose(value.as_str().unwrap_or_default());
        let (id, summary) = (escape(self.id()), text(&self.json["summary"]));
        put(html, format_args!("<h3 id=\"{id}\"><a href=\"#{id}\">{summary}</a></h3>\n"));
        let method = self.method.to_uppercase();
        put(
            html,
            format_args!(
                "<p><span class=\"method\">{method}</span> <code>{}</code></p>\n",
                escape(self.path)
            ),
        );
        if self.json["description"].is_string() {
            put(html, format_args!("<p>{}</p>\n", text(&self.json["description"])));
        }
        if self.json["security"] == serde_json::json!([]) {
            html.push_str("<p>Needs no API key.</p>\n");
        }
        if self.json["security"][0]["bearer"][0].is_string() {
            html.push_str("<p>For operators.</p>\n");
        }
        let parameters = self.json["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
        if !parameters.is_empty() {
            html.push_str("<table>\n<tr><th>Parameter</th><th>In</th><th>Type</th><th></th></tr>\n");
        }
        for it in parameters {
            let (name, place, about) = (text(&it["name"]), text(&it["in"]), text(&it["description"]));
            let kind = kind(&it["schema"]);
            put(
                html,
                format_args!(
                    "<tr><td><code>{name}</code></td><td>{place}</td><td>{kind}</td><td>{about}</td></tr>\n"
                ),
            );
        }
        if !parameters.is_empty() {
            html.push_str("</table>\n");
        }
        let media: Vec<_> = members(&self.json["requestBody"]["content"]).collect();
        if !media.is_empty() {
            html.push_str("<table>\n<tr><th>Body</th><th>Type</th></tr>\n");
            for (media_type, body) in media {
                let kind = kind(&body["schema"]);
                put(
                    html,
                    format_args!("<tr><td><code>{}</code></td><td>{kind}</td></tr>\n", escape(media_type)),
                );
            }
            html.push_str("</table>\n");
        }
        self.answers(document, html);
    }

    fn answers(&self, document: &Value, html: &mut String) {
        html.push_str("<table>\n<tr><th>Answer</th><th>Type</th><th></th></tr>\n");
        let mut example = None;
        for (status, response) in members(&self.json["responses"]) {
            let response = resolved(document, response);
            let mut kinds: Vec<_> = members(&response["content"])
                .map(|(media_type, body)| {
                    example = example.or(body.get("example"));
                    match kind(&body["schema"]) {
                        _ if media_type == "application/problem+json" => {
                            "<a href=\"#schema-Problem\">Problem</a>".to_owned()
                        }
                        _ if media_type != "application/json" => {
                            format!("<code>{}</code>", escape(media_type))
                        }
                        kind => kind,
                    }
                })
                .collect();
            kinds.dedup();
            let about = prose(response["description"].as_str().unwrap_or_default());
            put(
                html,
                format_args!(
                    "<tr><td>{}</td><td>{}</td><td>{about}</td></tr>\n",
                    escape(status),
                    kinds.join(", ")
                ),
            );
        }
        html.push_str("</table>\n");
        if let Some(example) = example {
            put(
                html,
                format_args!(
                    "<details><summary>Example</summary><pre>{}</pre></details>\n",
                    escape(&format!("{example:#}"))
                ),
            );
        }
    }
}

fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let pointer = value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    pointer.and_then(|pointer| document.pointer(pointer)).unwrap_or(value)
}

/// A schema in a few words, with links to others.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
        return format!("<a href=\"#schema-{0}\">{0}</a>", escape(name));
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        if let Some(any) = schema[key].as_array() {
            let kinds: Vec<_> = any.iter().map(kind).filter(|kind| !kind.is_empty()).collect();
            return kinds.join(if key == "allOf" { " with " } else { " or " });
        }
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<_> =
            values.iter().map(|value| format!("<code>{}</code>", escape(&value.to_string()))).collect();
        return values.join(" ");
    }
    if let Some(value) = schema.get("const") {
        return format!("<code>{}</code>", escape(&value.to_string()));
    }
    let mut types: Vec<_> = match &schema["type"] {
        Value::String(one) => vec![one.clone()],
        Value::Array(some) => some.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    };
    if schema["items"].is_object() {
        types = vec![format!("list of {}", kind(&schema["items"]))];
    } else if schema["additionalProperties"].is_object() {
        types = vec![format!("object of {}", kind(&schema["additionalProperties"]))];
    }
    let bounds = ["format", "pattern", "minimum", "maximum", "maxLength", "maxItems", "default"].into_iter();
    let bounds = bounds.filter_map(|name| {
        let value = schema.get(name).filter(|value| !value.is_null())?;
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some(format!(" <small>{name} <code>{}</code></small>", escape(&value)))
    });
    types.join(" or ") + &bounds.collect::<String>()
}

fn webhooks(document: &Value, html: &mut String) {
    html.push_str("<h2 id=\"webhooks\">Webhooks</h2>\n");
    let Some((_, first)) = members(&document["webhooks"]).next() else { return };
    let about = prose(first["post"]["description"].as_str().unwrap_or_default());
    put(html, format_args!("<p>{about}</p>\n<ul>\n"));
    for (name, _) in members(&document["webhooks"]) {
        put(html, format_args!("<li><code>{}</code></li>\n", escape(name)));
    }
    html.push_str("</ul>\n<p>The body is an <a href=\"#schema-Event\">Event</a>.</p>\n<table>\n");
    for it in first["post"]["parameters"].as_array().into_iter().flatten() {
        let (name, about) =
            (it["name"].as_str().unwrap_or_default(), it["description"].as_str().unwrap_or_default());
        put(html, format_args!("<tr><td><code>{}</code></td><td>{}</td></tr>\n", escape(name), prose(about)));
    }
    html.push_str("</table>\n");
}

fn schemas(document: &Value, html: &mut String) {
    html.push_str("<h2 id=\"schemas\">Schemas</h2>\n");
    for (name, schema) in members(&document["components"]["schemas"]) {
        let name = escape(name);
        put(html, format_args!("<h3 id=\"schema-{name}\"><a href=\"#schema-{name}\">{name}</a></h3>\n"));
        if let Some(about) = schema["description"].as_str() {
            put(html, format_args!("<p>{}</p>\n", prose(about)));
        }
        let parts = schema["allOf"].as_array();
        let has_members = |part: &&Value| part["properties"].is_object();
        let own: Vec<_> = match parts {
            Some(parts) => parts.iter().filter(has_members).collect(),
            None => Some(schema).into_iter().filter(has_members).collect(),
        };
        if own.is_empty() || parts.is_some() {
            let others: Vec<_> = parts.map_or_else(
                || vec![kind(schema)],
                |parts| parts.iter().filter(|part| !has_members(part)).map(kind).collect(),
            );
            put(html, format_args!("<p>{}</p>\n", others.join(" ")));
        }
        for part in own {
            table(part, html);
        }
    }
}

fn table(schema: &Value, html: &mut String) {
    let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    html.push_str("<table>\n");
    for (name, member) in members(&schema["properties"]) {
        let optional = if required.iter().any(|one| one == name) { "" } else { " <small>optional</small>" };
        let about = prose(member["description"].as_str().unwrap_or_default());
        let (name, kind) = (escape(name), kind(member));
        put(
            html,
            format_args!("<tr><td><code>{name}</code>{optional}</td><td>{kind}</td><td>{about}</td></tr>\n"),
        );
    }
    html.push_str("</table>\n");
}
