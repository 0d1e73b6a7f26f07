//! The tables of `migrations/sqlite/0002_certificates.sql`, and the indexes of `0003_certificate_searches.sql`.

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row as Line, Transaction, params, params_from_iter};

use super::{damaged, trouble, unsigned};
use crate::error::{Error, Kind, Result};
use crate::store::certificates::{
    Counts, Cursor, End, Ending, Found, LOOKED_AT, Page, Reservation, Row, Search, Serial,
};
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
    let mut statement = db.prepare_cached(&by_serial()).map_err(trouble)?;
    statement.query_row([serial.as_slice()], |line| Ok(found(line))).optional().map_err(trouble)?.transpose()
}

fn by_serial() -> String {
    format!("SELECT {COLUMNS} FROM certificates c {ENDS} WHERE c.serial = ?1")
}

fn by_number() -> String {
    format!("SELECT {COLUMNS} FROM certificates c {ENDS} WHERE c.number = ?1")
}

/// A page of a search: walks of indexes give the numbers of its certificates in the order of the answer, then each is read.
/// Nothing is sorted or looked at that is not on the page, but for the other conditions of a search by name: they are held
/// against the certificates of that name, a bounded number of them for each page.
pub(super) fn search(db: &Connection, search: &Search) -> Result<Page> {
    let by_name = search.name.is_some();
    let exact = !by_name || Search { name: search.name.clone(), ..Search::default() } == search.without_place();
    let most = if exact { search.limit } else { search.limit.max(LOOKED_AT) };
    // All of it sees one moment; nothing is written, so it ends as it began.
    let moment = db.unchecked_transaction().map_err(trouble)?;
    let places = places(&moment, search, most.saturating_add(1))?;
    let beside_name = Search { name: None, ..search.clone() };
    let mut page = Page::default();
    for (index, (_, number)) in places.iter().enumerate().take(most) {
        let one = read(&moment, *number)?;
        let cursor = one.reservation.cursor();
        // What another walk answers fits, or is damaged: that is for the layer above to say.
        if !by_name || beside_name.fits(&one.reservation) {
            page.found.push(one);
        }
        if page.found.len() == search.limit || index + 1 == most {
            page.next = (index + 1 < places.len()).then_some(cursor);
            break;
        }
    }
    Ok(page)
}

/// Where a certificate stands in the order of an answer, and its number.
type Place = (i64, i64);

/// Certificates that lie together in an index.
enum Walk<'a> {
    /// All of them.
    All,
    /// Those with this name.
    Name(&'a str),
    /// Those of this family.
    Family(&'a Family),
    /// Those of this family that this one asked for.
    Of(&'a str, &'a Family),
}

/// What certificates share that are issued alike.
#[derive(Clone, Default)]
struct Family {
    issuer: String,
    version: u32,
    profile: String,
}

/// A part of a walk; each says two numbers.
enum Part {
    /// Newest first: below the first number, above the second.
    Newest(i64, i64),
    /// Those that end in this second, above this number.
    Tie(i64, i64),
    /// The one that ends soonest first: after this second, before that one.
    Ends(i64, i64),
}

/// The first `count` places of an answer, in its order.
fn places(db: &Connection, search: &Search, count: usize) -> Result<Vec<Place>> {
    let Search { issuer, namespace, profile, requester, name, ends: _, after: _, limit: _ } = search;
    let all = issuer.is_none() && namespace.is_none() && profile.is_none() && requester.is_none();
    let families = if all || name.is_some() { Vec::new() } else { families(db, search)? };
    let walks: Vec<_> = match (name, requester) {
        (Some(name), _) => vec![Walk::Name(name)],
        (None, _) if all => vec![Walk::All],
        (None, Some(requester)) => families.iter().map(|family| Walk::Of(requester, family)).collect(),
        (None, None) => families.iter().map(Walk::Family).collect(),
    };
    let mut best: Vec<Place> = Vec::new();
    for walk in &walks {
        // The places of one walk are of no use where enough others come before them: the more walks, the shorter they are.
        let worst = best.get(count.saturating_sub(1)).copied();
        for part in parts(search, worst)? {
            best.extend(walk.places(db, &part, count)?);
        }
        best.sort_unstable();
        best.truncate(count);
    }
    Ok(best)
}

/// What is wanted of each walk, where nothing counts that comes after `worst`.
fn parts(search: &Search, worst: Option<Place>) -> Result<Vec<Part>> {
    let after =
        search.after.map(|Cursor { number, not_after }| Ok::<_, Error>((not_after, signed(number)?))).transpose()?;
    let Some((from, until)) = search.ends.filter(|_| search.name.is_none()) else {
        let below = after.map_or(i64::MAX, |(_, number)| number);
        return Ok(vec![Part::Newest(below, worst.map_or(0, |(_, number)| number))]);
    };
    let (from, until) = (from.as_second(), until.as_second());
    let until = worst.map_or(until, |(end, _)| until.min(end.saturating_add(1)));
    let tie = after.filter(|(end, _)| (from..until).contains(end)).map(|(end, number)| Part::Tie(end, number));
    let rest = Part::Ends(after.map_or(from - 1, |(end, _)| end.max(from - 1)), until);
    Ok(tie.into_iter().chain([rest]).collect())
}

impl Walk<'_> {
    /// At most `count` places of a part of it, in order.
    fn places(&self, db: &Connection, part: &Part, count: usize) -> Result<Vec<Place>> {
        let (Part::Newest(first, second) | Part::Tie(first, second) | Part::Ends(first, second)) = *part;
        let mut values: Vec<Value> = vec![first.into(), second.into(), i64::try_from(count).unwrap_or(i64::MAX).into()];
        match self {
            Self::All => {}
            Self::Name(name) => values.push((*name).to_owned().into()),
            Self::Family(family) => values.extend(family.values()),
            Self::Of(requester, family) => {
                values.extend(family.values().into_iter().chain([(*requester).to_owned().into()]))
            }
        }
        let mut statement = db.prepare_cached(&self.query(part)).map_err(trouble)?;
        let places = statement.query_map(params_from_iter(values), |line| Ok((line.get(0)?, line.get(1)?)));
        places.and_then(Iterator::collect).map_err(trouble)
    }

    fn query(&self, part: &Part) -> String {
        let by_end = !matches!(part, Part::Newest(..));
        let (table, own) = match (self, by_end) {
            (Self::All, false) => ("certificates NOT INDEXED", ""),
            (Self::All, true) => ("certificates INDEXED BY certificates_by_end", ""),
            (Self::Name(_), _) => ("certificate_names", "name = ?4 AND "),
            (Self::Family(_), false) => ("certificates INDEXED BY certificates_by_family", FAMILY),
            (Self::Family(_), true) => ("certificates INDEXED BY certificates_by_family_and_end", FAMILY),
            (Self::Of(..), false) => ("certificates INDEXED BY certificates_by_requester", FAMILY_OF),
            (Self::Of(..), true) => ("certificates INDEXED BY certificates_by_requester_and_end", FAMILY_OF),
        };
        let (place, between, order) = match part {
            Part::Newest(..) => ("-number", "number < ?1 AND number > ?2", "number DESC"),
            Part::Tie(..) => ("not_after", "not_after = ?1 AND number > ?2", "number"),
            Part::Ends(..) => ("not_after", "not_after > ?1 AND not_after < ?2", "not_after, number"),
        };
        format!("SELECT {place}, number FROM {table} WHERE {own}{between} ORDER BY {order} LIMIT ?3")
    }
}

const FAMILY: &str = "issuer = ?4 AND version = ?5 AND profile = ?6 AND ";
const FAMILY_OF: &str = "issuer = ?4 AND version = ?5 AND profile = ?6 AND requester = ?7 AND ";

impl Family {
    fn values(&self) -> [Value; 3] {
        [self.issuer.clone().into(), self.version.into(), self.profile.clone().into()]
    }
}

/// The families that a search is about: one step in an index for each family of the issuers, or of the requester.
fn families(db: &Connection, search: &Search) -> Result<Vec<Family>> {
    let Search { issuer, namespace, profile, requester, .. } = search;
    // All names of a namespace start with it and a colon.
    let (first, scope) = match (issuer, namespace) {
        (Some(issuer), _) => (issuer.to_string(), issuer.to_string()),
        (None, Some(namespace)) => (format!("{namespace}:"), format!("{namespace}:")),
        (None, None) => (String::new(), String::new()),
    };
    let inside =
        |family: &Family| if issuer.is_some() { family.issuer == scope } else { family.issuer.starts_with(&scope) };
    let wanted = |family: &Family| {
        profile.as_ref().is_none_or(|profile| *profile == family.profile)
            && namespace.as_ref().is_none_or(|namespace| family.issuer.starts_with(&format!("{namespace}:")))
    };
    let family = |line: &Line<'_>| Ok(Family { issuer: line.get(0)?, version: line.get(1)?, profile: line.get(2)? });
    let (mut all, mut last) = (Vec::new(), Family { issuer: first, ..Family::default() });
    loop {
        let mut next = None;
        for (step, known) in NEXT.iter().zip([3, 2, 1]) {
            let of = requester.clone().map(Value::from).into_iter();
            let values = params_from_iter(of.chain(last.values().into_iter().take(known)));
            let mut query = db.prepare_cached(&next_family(requester.is_some(), step)).map_err(trouble)?;
            next = query.query_row(values, family).optional().map_err(trouble)?;
            if next.is_some() {
                break;
            }
        }
        match next.filter(inside) {
            Some(family) => last = family,
            None => return Ok(all),
        }
        if wanted(&last) {
            all.push(last.clone());
        }
    }
}

/// What comes after a family: another profile, another version, another issuer. Each is one step in an index; SQLite would pass
/// every certificate of the family if the three were compared as one.
const NEXT: [&str; 3] = ["issuer = ? AND version = ? AND profile > ?", "issuer = ? AND version > ?", "issuer > ?"];

/// The first family after another one by that step, of all certificates or of those of a requester.
fn next_family(of_requester: bool, step: &str) -> String {
    let (index, own) =
        if of_requester { ("certificates_by_requester", "requester = ? AND ") } else { ("certificates_by_family", "") };
    format!(
        "SELECT issuer, version, profile FROM certificates INDEXED BY {index} \
         WHERE {own}{step} ORDER BY issuer, version, profile LIMIT 1"
    )
}

/// The certificate with that number, which a walk has named.
fn read(db: &Connection, number: i64) -> Result<Found> {
    let mut statement = db.prepare_cached(&by_number()).map_err(trouble)?;
    statement.query_row([number], |line| Ok(found(line))).map_err(trouble)?
}

/// The reservations that have no end, oldest first.
pub(super) fn open(db: &Connection) -> Result<Vec<Found>> {
    let query = format!("SELECT {COLUMNS} FROM certificates c {ENDS} WHERE e.number IS NULL ORDER BY c.number");
    let mut statement = db.prepare_cached(&query).map_err(trouble)?;
    let lines = statement.query_map([], |line| Ok(found(line))).map_err(trouble)?;
    lines.map(|line| line.map_err(trouble)?).collect()
}

/// The last second of the last certificate of that version of an issuer, but for those from one profile.
pub(super) fn last_end(db: &Connection, issuer: &IssuerName, version: Version, but: &str) -> Result<Option<Timestamp>> {
    let mut query = db.prepare_cached(LAST_END).map_err(trouble)?;
    let mut last: Option<i64> = None;
    for family in families(db, &Search { issuer: Some(issuer.clone()), ..Search::default() })? {
        if family.version == version.number() && family.profile != but {
            last = last.max(query.query_row(params_from_iter(family.values()), |line| line.get(0)).map_err(trouble)?);
        }
    }
    last.map(|second| Timestamp::from_second(second).map_err(|e| damaged().because(e))).transpose()
}

/// At most `limit` certificates that end after `after` and before `until`, the soonest first.
///
/// A successor is looked for among the later certificates with the first of the names, the newest first: that is nearly always it.
pub(super) fn endings(db: &Connection, after: Cursor, until: Timestamp, limit: usize) -> Result<Vec<Ending>> {
    let query = "SELECT c.number, c.serial, c.issuer, c.version, c.profile, c.names, c.not_before, c.not_after, \
          (SELECT s.serial FROM certificate_names n \
           CROSS JOIN certificates s ON s.number = n.number \
           CROSS JOIN certificate_ends x ON x.number = s.number \
           WHERE n.name = substr(c.names, 1, instr(c.names || char(10), char(10)) - 1) AND n.number > c.number \
             AND s.names = c.names AND s.profile = c.profile AND s.not_after > c.not_after AND x.signature IS NOT NULL \
           ORDER BY n.number DESC LIMIT 1) \
        FROM certificates c INDEXED BY certificates_by_end \
        CROSS JOIN certificate_ends e ON e.number = c.number \
        WHERE (c.not_after, c.number) > (?1, ?2) AND c.not_after < ?3 AND c.names <> '' AND e.signature IS NOT NULL \
        ORDER BY c.not_after, c.number LIMIT ?4";
    let mut statement = db.prepare_cached(query).map_err(trouble)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let values = params![after.not_after, signed(after.number)?, until.as_second(), limit];
    let lines = statement.query_map(values, |line| Ok(ending(line))).map_err(trouble)?;
    lines.map(|line| line.map_err(trouble)?).collect()
}

fn ending(line: &Line<'_>) -> Result<Ending> {
    let not_after = time(line, 7)?;
    let successor = line.get::<_, Option<Vec<u8>>>(8).map_err(trouble)?;
    Ok(Ending {
        cursor: Cursor { number: unsigned(line, 0).map_err(trouble)?, not_after: not_after.as_second() },
        serial: fixed(line, 1)?,
        issuer: line.get::<_, String>(2).map_err(trouble)?.parse().map_err(|e| damaged().because(e))?,
        version: Version::new(line.get(3).map_err(trouble)?).map_err(|e| damaged().because(e))?,
        profile: line.get(4).map_err(trouble)?,
        names: line.get::<_, String>(5).map_err(trouble)?.lines().map(str::to_owned).collect(),
        not_before: time(line, 6)?,
        not_after,
        successor: successor.map(|_| fixed(line, 8)).transpose()?,
    })
}

const LAST_END: &str = "SELECT max(not_after) FROM certificates WHERE issuer = ?1 AND version = ?2 AND profile = ?3";

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

    /// Whatever is asked, nothing is sorted and no table is read as a whole: `SEARCH` is what SQLite calls a way into an index.
    #[test]
    fn whatever_is_asked_is_read_off_an_index() {
        let mut db = Connection::open_in_memory().unwrap();
        crate::store::schema::create(&mut db).unwrap();
        let family = Family::default();
        let walks = [Walk::All, Walk::Name("dns:a"), Walk::Family(&family), Walk::Of("identity/a", &family)];
        let newest = walks.iter().map(|walk| walk.query(&Part::Newest(9, 0)));
        let by_end = [Part::Tie(0, 0), Part::Ends(0, 9)];
        let by_end = by_end.iter().flat_map(|part| walks.iter().map(move |walk| (walk, part)));
        // A name is searched in one order only.
        let by_end = by_end.filter(|(walk, _)| !matches!(walk, Walk::Name(_))).map(|(walk, part)| walk.query(part));
        let families = [true, false].into_iter().flat_map(|own| NEXT.iter().map(move |step| next_family(own, step)));
        let others = [by_number(), by_serial(), LAST_END.into()];
        for query in newest.chain(by_end).chain(families).chain(others) {
            let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
            let nothing = vec![Value::Null; plan.parameter_count()];
            let lines = plan.query_map(params_from_iter(nothing), |line| line.get::<_, String>(3)).unwrap();
            let plan: Vec<_> = lines.map(Result::unwrap).collect();
            assert!(plan.iter().all(|step| step.starts_with("SEARCH ")), "{query}\n{plan:#?}");
        }
    }
}
