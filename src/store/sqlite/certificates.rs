//! The tables of `migrations/sqlite/0002_certificates.sql`.

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row as Line, Transaction, params, params_from_iter};

use super::{damaged, trouble, unsigned};
use crate::error::{Error, Kind, Result};
use crate::store::certificates::{Counts, Cursor, End, Found, Reservation, Row, Search, Serial};
use crate::types::{IssuerName, Version};

const COLUMNS: &str = "c.number, c.serial, c.issuer, c.version, c.profile, c.requester, c.subject, c.names, c.not_before, \
                       c.not_after, c.at, c.body, c.tag, e.number, e.at, e.signature, e.tag";
const ENDS: &str = "LEFT JOIN certificate_ends e ON e.number = c.number";

/// Adds a row within a transaction.
pub(super) fn add(batch: &Transaction<'_>, row: &Row) -> Result<()> {
    match row {
        Row::Reserve(reservation) => reserve(batch, reservation),
        Row::End(end) => add_end(batch, end),
    }
}

fn reserve(batch: &Transaction<'_>, reservation: &Reservation) -> Result<()> {
    let Reservation {
        number,
        serial,
        issuer,
        version,
        profile,
        requester,
        subject,
        names,
        not_before,
        not_after,
        at,
        body,
        tag,
    } = reservation;
    let insert = "INSERT INTO certificates VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
    let mut insert = batch.prepare_cached(insert).map_err(trouble)?;
    let number = signed(*number)?;
    let values = params![
        number,
        serial.as_slice(),
        issuer.to_string(),
        version.number(),
        profile,
        requester,
        subject,
        names.join("\n"),
        not_before.as_second(),
        not_after.as_second(),
        at.as_second(),
        body,
        tag.as_slice()
    ];
    insert.execute(values).map_err(taken)?;
    let mut insert = batch.prepare_cached("INSERT INTO certificate_names VALUES (?1, ?2)").map_err(trouble)?;
    for name in names {
        insert.execute(params![name, number]).map_err(taken)?;
    }
    Ok(())
}

fn add_end(batch: &Transaction<'_>, end: &End) -> Result<()> {
    let End { number, at, signature, tag } = end;
    let mut insert = batch.prepare_cached("INSERT INTO certificate_ends VALUES (?1, ?2, ?3, ?4)").map_err(trouble)?;
    insert.execute(params![signed(*number)?, at.as_second(), signature, tag.as_slice()]).map_err(taken)?;
    Ok(())
}

/// A serial number or an end that is there already.
fn taken(error: rusqlite::Error) -> Error {
    if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) {
        return Error::new(Kind::Conflict, "this certificate is in the inventory already").because(error);
    }
    trouble(error)
}

/// The certificate with that serial number.
pub(super) fn find(db: &Connection, serial: &Serial) -> Result<Option<Found>> {
    let query = format!("SELECT {COLUMNS} FROM certificates c {ENDS} WHERE c.serial = ?1");
    let mut statement = db.prepare_cached(&query).map_err(trouble)?;
    statement.query_row([serial.as_slice()], |line| Ok(found(line))).optional().map_err(trouble)?.transpose()
}

/// A page of a search.
///
/// One index is walked in the order of the answer and nothing is sorted: that of the most selective condition; the other
/// conditions are looked at row by row.
pub(super) fn search(db: &Connection, search: &Search) -> Result<Vec<Found>> {
    let (query, values) = page(search)?;
    let mut statement = db.prepare_cached(&query).map_err(trouble)?;
    let lines = statement.query_map(params_from_iter(values), |line| Ok(found(line))).map_err(trouble)?;
    lines.map(|line| line.map_err(trouble)?).collect()
}

fn page(search: &Search) -> Result<(String, Vec<Value>)> {
    let Search { issuer, namespace, profile, requester, name, ends, after, limit } = search;
    let mut conditions: Vec<&str> = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    let mut when = |condition, value: Value| {
        conditions.push(condition);
        values.push(value);
    };
    let table = if let Some(name) = name {
        when("n.name = ?", name.clone().into());
        // A cross join stays in the order it is written in.
        "certificate_names n CROSS JOIN certificates c ON c.number = n.number"
    } else if ends.is_some() {
        "certificates c INDEXED BY certificates_by_end"
    } else if requester.is_some() {
        "certificates c INDEXED BY certificates_by_requester"
    } else if profile.is_some() {
        "certificates c INDEXED BY certificates_by_profile"
    } else if issuer.is_some() {
        "certificates c INDEXED BY certificates_by_issuer"
    } else {
        "certificates c"
    };
    let texts = [("c.requester = ?", requester), ("c.profile = ?", profile)];
    for (condition, text) in texts {
        if let Some(text) = text {
            when(condition, text.clone().into());
        }
    }
    if let Some(issuer) = issuer {
        when("c.issuer = ?", issuer.to_string().into());
    }
    if let Some(namespace) = namespace {
        // All names of the namespace start with it and a colon, and no character of a name lies between ':' and ';'.
        when("c.issuer >= ?", format!("{namespace}:").into());
        when("c.issuer < ?", format!("{namespace};").into());
    }
    if let Some((from, until)) = ends {
        when("c.not_after >= ?", from.as_second().into());
        when("c.not_after < ?", until.as_second().into());
    }
    let by_end = name.is_none() && ends.is_some();
    match (after, by_end) {
        (Some(Cursor { number, not_after }), true) => {
            when("(c.not_after, c.number) > (?, ?)", (*not_after).into());
            values.push(signed(*number)?.into());
        }
        (Some(Cursor { number, .. }), false) => {
            when(if name.is_some() { "n.number < ?" } else { "c.number < ?" }, signed(*number)?.into());
        }
        (None, _) => {}
    }
    let order = match (name, by_end) {
        (Some(_), _) => "n.number DESC",
        (None, true) => "c.not_after, c.number",
        (None, false) => "c.number DESC",
    };
    let conditions = if conditions.is_empty() { "1".to_owned() } else { conditions.join(" AND ") };
    values.push(i64::try_from(*limit).unwrap_or(i64::MAX).into());
    let query = format!("SELECT {COLUMNS} FROM {table} {ENDS} WHERE {conditions} ORDER BY {order} LIMIT ?");
    Ok((query, values))
}

/// The reservations that have no end, oldest first.
pub(super) fn open(db: &Connection) -> Result<Vec<Found>> {
    let query = format!("SELECT {COLUMNS} FROM certificates c {ENDS} WHERE e.number IS NULL ORDER BY c.number");
    let mut statement = db.prepare_cached(&query).map_err(trouble)?;
    let lines = statement.query_map([], |line| Ok(found(line))).map_err(trouble)?;
    lines.map(|line| line.map_err(trouble)?).collect()
}

/// The last second of the last certificate of that version of an issuer, but for those from one profile. Reads all of them.
pub(super) fn last_end(db: &Connection, issuer: &IssuerName, version: Version, but: &str) -> Result<Option<Timestamp>> {
    let query = "SELECT max(not_after) FROM certificates WHERE issuer = ?1 AND version = ?2 AND profile <> ?3";
    let asked = params![issuer.to_string(), version.number(), but];
    let last = db.query_row(query, asked, |line| line.get::<_, Option<i64>>(0));
    let last = last.map_err(trouble)?;
    last.map(|second| Timestamp::from_second(second).map_err(|e| damaged().because(e))).transpose()
}

/// How many certificates end in that span. Walks their part of the index.
pub(super) fn count_ends(db: &Connection, from: Timestamp, until: Timestamp) -> Result<u64> {
    let query = "SELECT count(*) FROM certificates WHERE not_after >= ?1 AND not_after < ?2";
    db.query_row(query, [from.as_second(), until.as_second()], |line| unsigned(line, 0)).map_err(trouble)
}

/// How many rows there are.
pub(super) fn counts(db: &Connection) -> Result<Counts> {
    let count = |query: &str| db.query_row(query, [], |line| unsigned(line, 0)).map_err(trouble);
    let counts = Counts {
        reserved: count("SELECT count(*) FROM certificates")?,
        names: count("SELECT count(*) FROM certificate_names")?,
        ended: count("SELECT count(*) FROM certificate_ends")?,
    };
    let last = count("SELECT coalesce(max(number), 0) FROM certificates")?;
    if last == counts.reserved {
        Ok(counts)
    } else {
        Err(damaged().because(format!("{} certificates, and the last is number {last}", counts.reserved)))
    }
}

fn found(line: &Line<'_>) -> Result<Found> {
    let reservation = Reservation {
        number: unsigned(line, 0).map_err(trouble)?,
        serial: fixed(line, 1)?,
        issuer: line.get::<_, String>(2).map_err(trouble)?.parse().map_err(|e| damaged().because(e))?,
        version: Version::new(line.get(3).map_err(trouble)?).map_err(|e| damaged().because(e))?,
        profile: line.get(4).map_err(trouble)?,
        requester: line.get(5).map_err(trouble)?,
        subject: line.get(6).map_err(trouble)?,
        names: line.get::<_, String>(7).map_err(trouble)?.lines().map(str::to_owned).collect(),
        not_before: time(line, 8)?,
        not_after: time(line, 9)?,
        at: time(line, 10)?,
        body: line.get(11).map_err(trouble)?,
        tag: fixed(line, 12)?,
    };
    let end = match line.get::<_, Option<i64>>(13).map_err(trouble)? {
        None => None,
        Some(_) => Some(End {
            number: unsigned(line, 13).map_err(trouble)?,
            at: time(line, 14)?,
            signature: line.get(15).map_err(trouble)?,
            tag: fixed(line, 16)?,
        }),
    };
    Ok(Found { reservation, end })
}

fn fixed<const N: usize>(line: &Line<'_>, column: usize) -> Result<[u8; N]> {
    let bytes: Vec<u8> = line.get(column).map_err(trouble)?;
    bytes.try_into().map_err(|_| damaged().because(format!("column {column} has another length")))
}

fn time(line: &Line<'_>, column: usize) -> Result<Timestamp> {
    let seconds: i64 = line.get(column).map_err(trouble)?;
    Timestamp::from_second(seconds).map_err(|e| damaged().because(e))
}

fn signed(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| Error::new(Kind::Limit, "the inventory has used up its numbers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is asked, no page is sorted: it is read off an index.
    #[test]
    fn no_search_sorts() {
        let mut db = Connection::open_in_memory().unwrap();
        crate::store::schema::create(&mut db).unwrap();
        let time = Timestamp::UNIX_EPOCH;
        let (issuer, profile, requester) = (Some("a:b".parse().unwrap()), Some("p".to_owned()), Some("r".to_owned()));
        let none = Search { limit: 10, ..Search::default() };
        let searches = [
            none.clone(),
            Search { name: Some("dns:a".into()), ends: Some((time, time)), issuer: issuer.clone(), ..none.clone() },
            Search { ends: Some((time, time)), requester: requester.clone(), ..none.clone() },
            Search { requester, issuer: issuer.clone(), ..none.clone() },
            Search { profile, namespace: Some("a".parse().unwrap()), ..none.clone() },
            Search { issuer, ..none.clone() },
        ];
        for search in searches {
            for after in [None, Some(Cursor { number: 7, not_after: 7 })] {
                let (query, values) = page(&Search { after, ..search.clone() }).unwrap();
                let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
                let lines = plan.query_map(params_from_iter(values), |line| line.get::<_, String>(3)).unwrap();
                let plan: Vec<_> = lines.map(Result::unwrap).collect();
                assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{query}\n{plan:#?}");
            }
        }
    }
}
