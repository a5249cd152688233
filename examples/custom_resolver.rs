//! A source of one's own: a file with one `ip:port` a line. The library asks again, compares, swaps
//! and backs off; the source only answers.
//!
//! Run it with `cargo run --example custom_resolver`. Look at what each edit of the file does to
//! the set: a broken line changes nothing, because a set is never shrunk by doubt.

use std::{
    borrow::Cow,
    env,
    error::Error,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use headless_lb::{Balancer, Resolution, Resolve, ResolveError};
use tokio::time::sleep;

struct Lines(PathBuf);

impl Resolve for Lines {
    async fn resolve(&self) -> Result<Resolution, ResolveError> {
        let text = tokio::fs::read_to_string(&self.0).await;
        let text = text.map_err(ResolveError::failed)?;
        let address = |line: &str| line.parse::<SocketAddr>().map_err(ResolveError::failed);
        text.lines().map(address).collect()
    }

    fn service(&self) -> Cow<'_, str> {
        self.0.to_string_lossy()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = env::temp_dir().join(format!("headless-lb-{}", process::id()));
    let outcome = edit(&file).await;
    fs::remove_file(&file)?;
    outcome
}

async fn edit(file: &Path) -> Result<(), Box<dyn Error>> {
    fs::write(file, "10.0.0.1:80\n")?;
    let balancer = Balancer::builder(Lines(file.to_owned()))
        .refresh_interval(Duration::from_secs(1))
        .spawn();
    let mut changes = balancer.subscribe();
    let first = changes.next().await.ok_or("the balancer ended")?;
    println!("One line:             {}", first.set());

    fs::write(file, "10.0.0.1:80\n10.0.0.2:80\n")?;
    let change = changes.next().await.ok_or("the balancer ended")?;
    println!("A second line, added: {:?}", change.added());

    fs::write(file, "10.0.0.1:80\n10.0.0.2:eighty\n")?;
    sleep(Duration::from_secs(2)).await;
    println!("A line that is none:  {}", balancer.endpoints());
    println!("Why:                  {}", balancer.status());
    Ok(())
}
