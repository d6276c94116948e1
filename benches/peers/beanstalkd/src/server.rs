//! The server, as a child that ends with its owner.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use contest::{Context, Result};

use crate::client::Client;

/// It is up within milliseconds.
const START_WITHIN: Duration = Duration::from_secs(10);

pub struct Server {
    child: Child,
    address: SocketAddr,
}

/// What the installed one says; `?` if there is none.
pub fn version() -> String {
    let told = Command::new("beanstalkd").arg("-v").output();
    let told = told.map(|told| String::from_utf8_lossy(&told.stdout).into_owned());
    let version = told
        .ok()
        .and_then(|told| told.split_whitespace().last().map(str::to_owned));
    version.unwrap_or_else(|| "?".to_owned())
}

impl Server {
    pub fn start(dir: &Path) -> Result<Server> {
        let address = free_address()?;
        let child = Command::new("beanstalkd")
            .arg("-b")
            .arg(dir)
            .arg("-f0")
            .args(["-l", &address.ip().to_string()])
            .args(["-p", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("beanstalkd does not start; is it installed?")?;
        let server = Server { child, address };
        let begun = Instant::now();
        while let Err(error) = server.connect() {
            if begun.elapsed() > START_WITHIN {
                return Err(error.context("beanstalkd does not answer"));
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        Ok(server)
    }

    pub fn connect(&self) -> Result<Client> {
        Client::connect(self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already, and there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that is free now: the server cannot choose one by itself and say which.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?)
}
