//! The command line: one file per verb.
//!
//! A verb is a struct of `clap` with a method `run(self, &App) -> Result<()>`. Adding one is a `mod` line and a line in
//! `verbs!` below. Answers go to standard output through [`output`], everything said to people to standard error. A token is
//! never an argument, because other users of the machine can read arguments.

mod acme;
mod agent;
mod announcement;
mod ask;
mod attest;
mod audit;
mod backup;
mod cert;
mod completions;
pub(crate) mod connection;
mod dev;
mod device_worker;
mod doctor;
mod exit;
mod file;
mod identity;
mod init;
mod input;
mod issuer;
mod key;
mod login;
mod mac;
mod metrics;
mod output;
mod policy;
mod profile;
mod restore;
mod rewrap;
mod serve;
mod sign;
mod sink;
mod status;
mod subject;
mod syslog;
mod token;
mod whoami;
mod witness;
mod wrap;

use std::process::ExitCode;

use clap::Parser;

use crate::client::{Client, PageRequest};
use crate::error::{Error, Kind, Result};
use crate::wire::Page;
use connection::Global;
use output::Out;

/// Writes a tree of verbs and how each is run.
macro_rules! verbs {
    ($(#[$meta:meta])* $tree:ident { $($(#[$about:meta])* $verb:ident($args:ty),)* }) => {
        $(#[$meta])*
        #[derive(Debug, clap::Subcommand)]
        enum $tree { $($(#[$about])* $verb($args),)* }

        impl $tree {
            fn run(self, app: &$crate::cli::App) -> $crate::error::Result<()> {
                match self { $(Self::$verb(args) => args.run(app),)* }
            }
        }
    };
}
use verbs;

/// Writes a noun and the tree of its verbs.
macro_rules! noun {
    ($(#[$meta:meta])* $noun:ident: $tree:ident { $($verb:ident($args:ty),)* }) => {
        $(#[$meta])*
        #[derive(Debug, clap::Args)]
        pub(super) struct $noun {
            #[command(subcommand)]
            verb: $tree,
        }

        impl $noun {
            pub(super) fn run(self, app: &$crate::cli::App) -> $crate::error::Result<()> {
                self.verb.run(app)
            }
        }

        $crate::cli::verbs! { $tree { $($verb($args),)* } }
    };
}
use noun;

verbs! {
    /// What can be asked for, in the order of the help.
    Verb {
        Dev(dev::Dev),
        Init(init::Init),
        Serve(serve::Serve),
        Doctor(doctor::Doctor),
        Login(login::Login),
        Whoami(whoami::Whoami),
        Key(key::Key),
        Wrap(wrap::Wrap),
        Unwrap(wrap::Unwrap),
        Rewrap(rewrap::Rewrap),
        Datakey(wrap::Datakey),
        Sign(sign::Sign),
        Verify(sign::Verify),
        Mac(mac::Mac),
        File(file::File),
        Agent(agent::Agent),
        Issuer(issuer::Issuer),
        Profile(profile::Profile),
        Cert(cert::Cert),
        Announcement(announcement::Announcement),
        Token(token::Token),
        Acme(acme::Acme),
        Identity(identity::Identity),
        Policy(policy::Policy),
        Attest(attest::Attest),
        Audit(audit::Audit),
        Status(status::Status),
        Metrics(metrics::Metrics),
        Backup(backup::Backup),
        Restore(restore::Restore),
        Witness(witness::Witness),
        Completions(completions::Completions),
        DeviceWorker(device_worker::DeviceWorker),
    }
}

/// Keys that stay in hardware: wrap, sign and manage them from here.
#[derive(Debug, Parser)]
#[command(name = "signet", version, after_help = FIRST_STEPS, after_long_help = exit::HELP)]
#[command(arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

const FIRST_STEPS: &str = "\
First steps:
  signet dev
  signet login --server https://kms.example:8443 --ca ca.pem
  signet key create release --algorithm ecdsa-p256-sha256
  signet sign release app.tar --out app.tar.sig

signet --help ends with the exit codes.";

/// What every verb is given.
#[derive(Debug)]
pub(super) struct App {
    global: Global,
    out: Out,
}

impl App {
    /// Runs `work` with a client of the server that options, environment and profile name.
    fn online<T>(&self, work: impl AsyncFnOnce(&Client) -> Result<T>) -> Result<T> {
        let client = Client::new(self.global.client_options()?)?;
        block_on(work(&client))
    }
}

/// A runtime of one thread: a command waits for one thing at a time.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::internal("starting the runtime").because(e))?;
    runtime.block_on(work)
}

/// A runtime of as many threads as there are cores, for the service itself.
fn service_runtime<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    crate::confine::keep_rights()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::internal("starting the runtime").because(e))?;
    runtime.block_on(work)
}

/// Collects all pages of a list.
async fn all<T>(page: impl AsyncFn(&PageRequest) -> Result<Page<T>>) -> Result<Page<T>> {
    let mut items = Vec::new();
    let mut request = PageRequest::default();
    loop {
        let Page { items: more, next_page_token } = page(&request).await?;
        items.extend(more);
        match next_page_token {
            None => return Ok(Page { items, next_page_token: None }),
            Some(token) if request.token.as_ref() == Some(&token) => {
                return Err(Error::new(Kind::Internal, "the server gives the same page again and again"));
            }
            Some(token) => request.token = Some(token),
        }
    }
}

/// Reads the arguments of the process, does what they say and tells how it went.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            // Nobody is left to tell where printing fails, too.
            let _ = usage.print();
            return ExitCode::from(if usage.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    let app = App { out: Out::new(cli.global.json), global: cli.global };
    match crate::confine::close().and_then(|()| cli.verb.run(&app)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::from(exit::code(error.kind()))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Each verb with its full name, such as `signet key create`.
    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
        let visible: Vec<_> = command.get_subcommands().filter(|c| c.get_name() != "help").collect();
        if visible.is_empty() {
            found.push((path.to_owned(), command.clone()));
        }
        for child in visible {
            leaves(child, &format!("{path} {}", child.get_name()), found);
        }
    }

    fn all_verbs() -> Vec<(String, clap::Command)> {
        let mut found = Vec::new();
        leaves(&Cli::command(), "signet", &mut found);
        found
    }

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_verb_has_a_sentence_and_an_example() {
        for (name, command) in all_verbs() {
            assert!(command.get_about().is_some(), "{name} says nothing");
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&name), "the help of {name} shows no example");
        }
    }

    #[test]
    fn each_verb_and_option_is_in_the_reference() {
        let reference = include_str!("../../docs/cli.md");
        for (name, command) in all_verbs() {
            assert!(reference.contains(&format!("`{name}")), "docs/cli.md does not mention {name}");
            for option in command.get_arguments().filter_map(clap::Arg::get_long).filter(|long| *long != "help") {
                assert!(
                    reference.contains(&format!("--{option}")),
                    "docs/cli.md does not mention --{option} of {name}"
                );
            }
        }
    }

    #[test]
    fn examples_can_be_parsed() {
        for (name, command) in all_verbs() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().map(str::trim).filter(|line| line.starts_with("signet ")) {
                let words = line.split(['|', '<', '>']).next().unwrap_or_default();
                let words = words.split_whitespace().map(|word| word.trim_matches('\''));
                if let Err(error) = Cli::try_parse_from(words) {
                    panic!("{name}: {line}: {error}");
                }
            }
        }
    }

    #[test]
    fn no_option_takes_a_token() {
        for (name, command) in all_verbs() {
            assert!(!command.get_arguments().any(|arg| arg.get_long() == Some("token")), "{name}");
        }
    }

    #[tokio::test]
    async fn pages_are_joined_and_never_turn_in_circles() {
        let page = async |request: &PageRequest| {
            let next = match request.token.as_deref() {
                None => Some("b".to_owned()),
                Some(_) => None,
            };
            Ok(Page { items: vec![request.token.clone()], next_page_token: next })
        };
        assert_eq!(all(page).await.unwrap().items, [None, Some("b".to_owned())]);
        let circle = async |_: &PageRequest| Ok(Page::<u8> { items: vec![], next_page_token: Some("a".into()) });
        assert!(all(circle).await.is_err());
    }
}
