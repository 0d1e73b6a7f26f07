//! What was measured: a table for people, JSON for programs, and the bars.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};
use signet::types::Residency;

use crate::CERTIFICATE;
use crate::changes::Changes;
use crate::handshakes::Handshakes;
use crate::inventory::Inventory;
use crate::many::Many;
use crate::raw::Sample;

/// How much a service may add to device and check, in microseconds of processor time: alone, and as one of a hundred.
const SINGLE: f64 = 60.0;
const IN_BATCH: f64 = 8.0;
/// What 32 connections must reach of the throughput of 8.
const CROWD: f64 = 0.95;
/// What a TPM behind the service must reach of its raw throughput, for operations that take longer than this, in microseconds.
const TPM: f64 = 0.95;
const SLOW: f64 = 200.0;
/// How much a certificate may cost beside the raw signature, alone.
const CERTIFICATE_ALONE: f64 = 200.0;
/// The 99th percentile of a search, in microseconds, for a page of 100.
const SEARCH: f64 = 20_000.0;
/// How much more the median of a request may be among the most keys than among the fewest.
const FLAT: f64 = 1.5;
const MEMORY: u64 = 40 << 20;
const START: Duration = Duration::from_secs(1);

/// How the service is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// One operation per request, on so many connections.
    Connections(usize),
    /// So many operations per request.
    Batch(usize),
}

impl Load {
    pub(crate) const ALL: [Self; 5] =
        [Self::Connections(1), Self::Connections(8), Self::Connections(32), Self::Batch(100), Self::Batch(1000)];
    /// The most connections of any load.
    pub(crate) const MOST: usize = 32;
}

impl Load {
    /// The items of a request, where it is a batch.
    pub(crate) const fn items(self) -> Option<usize> {
        match self {
            Self::Connections(_) => None,
            Self::Batch(items) => Some(items),
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connections(1) => f.write_str("1 connection"),
            Self::Connections(count) => write!(f, "{count} connections"),
            Self::Batch(items) => write!(f, "batches of {items}"),
        }
    }
}

impl Serialize for Load {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One operation under one load. Times are microseconds; processor time is per operation.
#[derive(Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) load: Load,
    pub(crate) rate: f64,
    /// Of a request: of a whole batch, where it is one.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) server: f64,
    pub(crate) workers: f64,
    /// What the load itself cost.
    pub(crate) client: f64,
}

/// One operation on one device.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) device: String,
    pub(crate) residency: Residency,
    pub(crate) operation: String,
    /// The device alone, by the number of threads.
    pub(crate) raw: BTreeMap<usize, Sample>,
    /// Two processes at the device, a thread each: what a second worker could bring at most.
    pub(crate) processes: Option<Sample>,
    pub(crate) cells: Vec<Cell>,
}

/// Processor time of our own cryptography, in microseconds.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Costs {
    /// The check of one signature, by algorithm.
    pub(crate) checks: BTreeMap<String, f64>,
    /// Sealing and opening one envelope, without the device.
    pub(crate) envelope: (f64, f64),
    /// Holding one certificate against all rules.
    pub(crate) lint: f64,
}

/// What is true of the service as a whole.
#[derive(Debug, Default, Serialize)]
pub(crate) struct House {
    /// Resident bytes of server and worker with an empty store.
    pub(crate) idle: (u64, u64),
    /// A start with a thousand wrapped keys.
    pub(crate) start: Duration,
}

/// All of it.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) costs: Costs,
    pub(crate) house: Option<House>,
    pub(crate) inventory: Option<Inventory>,
    pub(crate) changes: Vec<Changes>,
    pub(crate) handshakes: Vec<Handshakes>,
    pub(crate) many: Vec<Many>,
    pub(crate) rows: Vec<Row>,
}

/// A bar, and what came of it.
#[derive(Debug, Serialize)]
struct Bar {
    name: String,
    figure: String,
    bar: String,
    met: bool,
}

impl Row {
    fn cell(&self, load: Load) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.load == load)
    }

    fn name(&self) -> String {
        format!("{} {} {}", self.device, self.residency, self.operation)
    }

    /// The most that the device gave without the service.
    fn best_rate(&self) -> f64 {
        self.raw.values().map(|raw| raw.rate).fold(0.0, f64::max)
    }

    /// What it cost with as many threads as the worker has for this: all for signatures, one for secret keys.
    fn raw_cpu(&self) -> f64 {
        let secret = self.operation.contains("wrap");
        let raw = if secret { self.raw.values().next() } else { self.raw.values().next_back() };
        raw.map_or(0.0, |raw| raw.cpu)
    }

    fn is_software_token(&self) -> bool {
        self.device == "softhsm"
    }
}

impl Cell {
    /// Both sides of the service.
    fn cpu(&self) -> f64 {
        self.server + self.workers
    }
}

impl Report {
    /// What an operation must cost besides us: the device's part, and the check and the cryptography that are ours by promise.
    /// The check of a wrap is one more HMAC, which all items of a batch share.
    fn owed(&self, row: &Row, items: f64) -> f64 {
        let device = row.raw_cpu();
        let (seal, open) = self.costs.envelope;
        device
            + match &*row.operation {
                "wrap" => device / items + seal,
                "unwrap" => open,
                algorithm => self.costs.checks.get(algorithm).copied().unwrap_or(0.0),
            }
    }

    fn bars(&self) -> Vec<Bar> {
        let mut bars = Vec::new();
        for row in &self.rows {
            if row.operation.starts_with(CERTIFICATE) {
                certificate_bar(row, &mut bars);
            } else if row.operation.contains("wrap-") {
                // They stand in the table, as ratios to the raw device: a bar was set for none of them.
            } else if row.is_software_token() {
                self.software_bars(row, &mut bars);
            } else {
                tpm_bar(row, &mut bars);
            }
        }
        if let Some(House { idle: (server, worker), start }) = &self.house {
            for (name, bytes) in [("server", *server), ("worker", *worker)] {
                bars.push(Bar {
                    name: format!("idle memory of the {name}"),
                    figure: format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
                    bar: format!("< {} MiB", MEMORY >> 20),
                    met: bytes < MEMORY,
                });
            }
            bars.push(Bar {
                name: "start with 1,000 wrapped keys".to_owned(),
                figure: format!("{:.0} ms", start.as_secs_f64() * 1e3),
                bar: format!("< {} ms", START.as_millis()),
                met: *start < START,
            });
        }
        if let (Some(few), Some(many)) = (self.many.first(), self.many.last()) {
            type Median = fn(&Many) -> f64;
            let kinds: [(&str, Median); 5] = [
                ("a wrap by a key that is not loaded", |one| one.cold.0),
                ("a wrap by one that is", |one| one.warm.0),
                ("the making of a key", |one| one.create.0),
                ("a page of a list", |one| one.page.0),
                ("the last namespace", |one| one.last.0),
            ];
            for (name, median) in kinds {
                let ratio = median(many) / median(few);
                bars.push(Bar {
                    name: format!("{name} among {} keys, to that among {}", many.keys, few.keys),
                    figure: format!("{ratio:.2}"),
                    bar: format!("<= {FLAT}"),
                    met: ratio <= FLAT,
                });
            }
        }
        for searched in self.inventory.iter().flat_map(|inventory| &inventory.searches) {
            if searched.items <= 100 {
                bars.push(Bar {
                    name: format!("search by {}: 99th percentile", searched.name),
                    figure: format!("{:.1} ms", searched.p99 / 1e3),
                    bar: format!("< {:.0} ms", SEARCH / 1e3),
                    met: searched.p99 < SEARCH,
                });
            }
        }
        bars
    }

    fn software_bars(&self, row: &Row, bars: &mut Vec<Bar>) {
        for (load, items, allowed) in [(Load::Connections(32), 1.0, SINGLE), (Load::Batch(100), 100.0, IN_BATCH)] {
            let Some(cell) = row.cell(load) else { continue };
            let owed = self.owed(row, items);
            bars.push(Bar {
                name: format!("{}, {load}: processor time", row.name()),
                figure: format!("{:.1} us = device and check {owed:.1} + {:.1}", cell.cpu(), cell.cpu() - owed),
                bar: format!("<= {owed:.1} + {allowed:.0} us"),
                met: cell.cpu() <= owed + allowed,
            });
        }
        if let (Some(few), Some(many)) = (row.cell(Load::Connections(8)), row.cell(Load::Connections(32))) {
            bars.push(ratio(format!("{}: 32 connections to 8", row.name()), many.rate / few.rate, CROWD));
        }
    }

    /// The whole in JSON.
    pub(crate) fn json(&self) -> String {
        let mut value = serde_json::to_value(self).expect("figures");
        value["bars"] = serde_json::to_value(self.bars()).expect("figures");
        serde_json::to_string_pretty(&value).expect("JSON")
    }

    /// The table and the bars, for people.
    pub(crate) fn print(&self) {
        println!("operations per second; latency and processor time in microseconds, processor time per operation");
        println!("load is what this program itself spent to ask; ratio is to the best rate of the raw device\n");
        for row in &self.rows {
            println!("{}", row.name());
            println!(
                "  {:<18} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8} {:>6}",
                "", "op/s", "p50", "p99", "server", "worker", "load", "ratio"
            );
            for (threads, Sample { rate, cpu, p50, p99 }) in &row.raw {
                let name = format!("raw, {threads} thread{}", if *threads == 1 { "" } else { "s" });
                println!("  {name:<18} {rate:>9.0} {p50:>9.0} {p99:>9.0} {:>8} {cpu:>8.1}", "");
            }
            if let Some(Sample { rate, cpu, p50, p99 }) = &row.processes {
                println!("  {:<18} {rate:>9.0} {p50:>9.0} {p99:>9.0} {:>8} {cpu:>8.1}", "raw, 2 processes", "");
            }
            for Cell { load, rate, p50, p99, server, workers, client } in &row.cells {
                let (name, ratio) = (load.to_string(), rate / row.best_rate());
                println!(
                    "  {name:<18} {rate:>9.0} {p50:>9.0} {p99:>9.0} {server:>8.1} {workers:>8.1} {client:>8.1} {ratio:>6.2}"
                );
            }
        }
        for Handshakes { key, rate, p50, p99, server, workers, client } in &self.handshakes {
            println!("handshakes of TLS, the server's key in {key}");
            println!("  {:<18} {rate:>9.0} {p50:>9.0} {p99:>9.0} {server:>8.1} {workers:>8.1} {client:>8.1}", "");
        }
        if !self.changes.is_empty() {
            println!("a change that waits for an anchor, by anchor and connections; a witness stands beside SoftHSM");
        }
        for Changes { anchor, connections, rate, p50, p99, server, workers } in &self.changes {
            let name = format!("{anchor}, {connections}");
            println!("  {name:<22} {rate:>5.0} {p50:>9.0} {p99:>9.0} {server:>8.1} {workers:>8.1}");
        }
        if !self.many.is_empty() {
            print_many(&self.many);
        }
        if let Some(inventory) = &self.inventory {
            print_inventory(inventory);
        }
        println!("\nour own cryptography, processor time in microseconds");
        for (algorithm, cost) in &self.costs.checks {
            println!("  check of {algorithm:<20} {cost:>6.1}");
        }
        println!("  lint of a certificate         {:>6.1}", self.costs.lint);
        let (seal, open) = self.costs.envelope;
        println!("  envelope, seal                {seal:>6.1}\n  envelope, open                {open:>6.1}\n");
        println!("the bars");
        for Bar { name, figure, bar, met } in self.bars() {
            println!("  {:<7} {name}: {figure}; bar {bar}", if met { "met" } else { "NOT MET" });
        }
    }
}

fn print_many(all: &[Many]) {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let pair = |(p50, p99): &(f64, f64)| format!("{p50:.0} / {p99:.0}");
    println!("\nwrapped keys, made in batches of 1,000; requests in microseconds, median / 99th percentile");
    for (at, one) in all.iter().enumerate() {
        let Many { keys, made, cost, start, memory, database, idle, cold, warm, create, page, last, backup } = one;
        println!("{keys} keys");
        println!("  made {made:.0} per second, server {:.0} and worker {:.0} us per key", cost.0, cost.1);
        println!(
            "  start {:.0} ms; database {:.1} MiB; idle {:.1} % of a core",
            start.as_secs_f64() * 1e3,
            mib(*database),
            idle * 1e2
        );
        print!("  resident memory of the server {:.1} MiB", mib(*memory));
        match at.checked_sub(1).and_then(|before| all.get(before)) {
            Some(few) if *keys >= 10_000 => {
                println!(", {:.0} bytes for each key more", (memory - few.memory) as f64 / (keys - few.keys) as f64);
            }
            _ => println!(),
        }
        println!("  backup {:.1} s, {:.1} MiB", backup.0.as_secs_f64(), mib(backup.1));
        println!("  wrap, not loaded {}; loaded {}; create {}", pair(cold), pair(warm), pair(create));
        println!("  page of 100 {}; the last namespace {}", pair(page), pair(last));
    }
}

fn print_inventory(inventory: &Inventory) {
    let Inventory { certificates, filled, database, start, memory, searches } = inventory;
    let (mib, millis) = (|bytes: u64| bytes as f64 / f64::from(1 << 20), |time: &Duration| time.as_secs_f64() * 1e3);
    println!("\nan inventory of {certificates} certificates, filled in {filled:.0} s");
    println!(
        "  database {:.0} MiB; start {:.0} ms, and {:.0} ms while it was empty",
        mib(*database),
        millis(&start.1),
        millis(&start.0)
    );
    println!(
        "  resident memory of the server {:.1} MiB empty, {:.1} MiB after the start, {:.1} MiB after the searches",
        mib(memory.0),
        mib(memory.1),
        mib(memory.2)
    );
    println!("  {:<44} {:>6} {:>9} {:>9}", "search, microseconds over HTTPS", "items", "p50", "p99");
    for searched in searches {
        println!("  {:<44} {:>6} {:>9.0} {:>9.0}", searched.name, searched.items, searched.p50, searched.p99);
    }
}

/// What a certificate may cost more than its signature.
fn certificate_bar(row: &Row, bars: &mut Vec<Bar>) {
    let Some(cell) = row.cell(Load::Connections(32)) else { return };
    let raw = row.raw_cpu();
    bars.push(Bar {
        name: format!("{}, one at a time on 32 connections: processor time", row.name()),
        figure: format!("{:.1} us = device {raw:.1} + {:.1}", cell.cpu(), cell.cpu() - raw),
        bar: format!("<= {raw:.1} + {CERTIFICATE_ALONE:.0} us"),
        met: cell.cpu() <= raw + CERTIFICATE_ALONE,
    });
}

/// The bar of a device whose operations are slow enough to hide ours.
fn tpm_bar(row: &Row, bars: &mut Vec<Bar>) {
    let slow = row.raw.values().all(|raw| raw.p50 > SLOW);
    if let Some(cell) = row.cell(Load::Connections(32)).filter(|_| slow) {
        bars.push(ratio(
            format!("{}, 32 connections: of raw throughput", row.name()),
            cell.rate / row.best_rate(),
            TPM,
        ));
    }
}

fn ratio(name: String, ratio: f64, bar: f64) -> Bar {
    Bar { name, figure: format!("{ratio:.3}"), bar: format!(">= {bar}"), met: ratio >= bar }
}
