//! The schema in the database: its SQL, whether it is there, and installing it.

use std::fmt::Write as _;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::connect::reason;

/// Bring the tables of version 1 to version 2, and so on. Functions are made anew behind them, so a step drops those whose
/// arguments or result change.
const MIGRATIONS: &[&str] = &["-- Version 2 has channel_name(), and no table of another kind."];
/// The version of the schema that this program works with.
pub const VERSION: i32 = 1 + MIGRATIONS.len() as i32;
/// The longest name of a schema, in bytes: NOTIFY's channel is named after it.
const LONGEST_NAME: usize = 48;
/// The present version.
const SCHEMA: &str = concat!(include_str!("schema.sql"), "\n", include_str!("track.sql"));

/// Whether a server takes nothing, though it is a primary.
pub(super) const IS_READ_ONLY: &str = "SELECT current_setting('transaction_read_only')::bool";

/// A schema's name, checked: it can stand in any SQL between double quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaName(String);

impl SchemaName {
    /// Checks a name.
    pub fn parse(name: &str) -> Result<SchemaName, String> {
        let is_usual = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-');
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_usual) || name.starts_with("pg_") {
            let expected = "letters, digits, `_` and `-`, not beginning with `pg_`";
            return Err(format!("schema: expected 1 to {LONGEST_NAME} bytes of {expected}"));
        }
        Ok(SchemaName(name.to_owned()))
    }

    /// As an identifier.
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.0)
    }

    /// The channel of NOTIFY and LISTEN, not quoted.
    pub fn notify(&self) -> String {
        format!("fraiseql_subs:{}", self.0)
    }

    /// SQL with the names filled in.
    pub fn fill(&self, template: &str) -> String {
        template.replace("@schema@", &self.quoted()).replace("@notify@", &self.notify())
    }

    /// What `install` runs: one transaction, which does nothing where nothing is to be done.
    pub fn sql(&self) -> String {
        self.script(MIGRATIONS)
    }

    /// The same with other steps.
    pub fn script(&self, migrations: &[&str]) -> String {
        let mut steps = String::new();
        for (step, from) in migrations.iter().zip(1..) {
            _ = writeln!(steps, "    IF installed = {from} THEN\n        EXECUTE $step$\n{step}\n        $step$;");
            _ = writeln!(steps, "        installed := {};\n    END IF;", from + 1);
        }
        let template = include_str!("install.sql")
            .replace("@version@", &(migrations.len() + 1).to_string())
            .replace("@migrations@\n", &steps)
            .replace("@sql@", SCHEMA);
        self.fill(&template)
    }
}

/// What a server has of our schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// This version of it.
    Version(i32),
}

/// Looks for the schema. The error says why a server is none that we can work with.
pub async fn look(client: &Client, schema: &SchemaName) -> Result<Found, String> {
    let query = &format!(
        "{IS_READ_ONLY}, current_setting('server_version_num')::int, pg_is_in_recovery(), to_regclass($1) IS NOT NULL"
    );
    let table = format!("{}.meta", schema.quoted());
    let row = client.query_typed_one(query, &[(&table, Type::TEXT)]).await.map_err(|error| reason(&error))?;
    let (number, is_standby, is_there): (i32, bool, bool) = (row.get(1), row.get(2), row.get(3));
    if number < 140_000 {
        return Err(format!("version {} is too old: PostgreSQL 14 or newer is needed", number / 10_000));
    }
    if is_standby {
        return Err("it is a standby: a primary is needed".to_owned());
    }
    check_writable(row.get(0))?;
    if !is_there {
        return Ok(Found::Nothing);
    }
    let row = client.query_typed_one(&schema.fill("SELECT version FROM @schema@.meta"), &[]).await;
    row.map(|row| Found::Version(row.get(0))).map_err(|error| reason(&error))
}

/// What is wrong with a server that is read-only.
pub(super) fn check_writable(is_read_only: bool) -> Result<(), String> {
    if is_read_only { Err("it is read-only (default_transaction_read_only)".to_owned()) } else { Ok(()) }
}

/// Whether this program can work with what was found; the error names what installs it.
pub fn check(found: Found, schema: &SchemaName) -> Result<(), String> {
    let problem = match found {
        Found::Version(version) if version >= VERSION => return Ok(()),
        Found::Version(version) => format!("has version {version}, and {VERSION} is needed"),
        Found::Nothing => "is not there".to_owned(),
    };
    Err(format!("the schema {} {problem}: run `fraiseql-subs pg install`, or pass install=True", schema.quoted()))
}

/// Installs the schema, or brings it up to date. Whoever else does so meanwhile waits and then finds it done.
pub async fn install(client: &Client, schema: &SchemaName) -> Result<(), String> {
    let failed = |error: tokio_postgres::Error| match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            format!("installing the schema needs a role that may: {}", reason(&error))
        }
        _ => reason(&error),
    };
    // Whoever may not install it need not, where it is there.
    if check(look(client, schema).await?, schema).is_err() {
        client.batch_execute(&schema.sql()).await.map_err(failed)?;
    }
    Ok(())
}
