//! The few words of the protocol that are needed: put, reserve, delete.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use contest::{Context, Result, bail};

pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Result<Client> {
        let stream = TcpStream::connect(address)?;
        // Each command is one write that is answered: nothing to be collected.
        stream.set_nodelay(true)?;
        Ok(Client {
            stream: BufReader::new(stream),
        })
    }

    /// Returns when the server has it in its log.
    pub fn put(&mut self, payload: &[u8]) -> Result<()> {
        // Priority 0, no delay, a minute to run.
        let mut command = format!("put 0 0 60 {}\r\n", payload.len()).into_bytes();
        command.extend_from_slice(payload);
        command.extend_from_slice(b"\r\n");
        let answer = self.ask(&command)?;
        if !answer.starts_with("INSERTED ") {
            bail!("put: {answer}");
        }
        Ok(())
    }

    /// Waits for a job; its id.
    pub fn reserve(&mut self) -> Result<String> {
        let answer = self.ask(b"reserve\r\n")?;
        let mut words = answer.split(' ');
        let (Some("RESERVED"), Some(id), Some(bytes)) = (words.next(), words.next(), words.next())
        else {
            bail!("reserve: {answer}");
        };
        let bytes: usize = bytes.parse().context("the length of a job")?;
        let mut payload = vec![0; bytes + 2];
        self.stream.read_exact(&mut payload)?;
        Ok(id.to_owned())
    }

    /// Returns when the server has the job's end in its log.
    pub fn delete(&mut self, id: &str) -> Result<()> {
        let answer = self.ask(format!("delete {id}\r\n").as_bytes())?;
        if answer != "DELETED" {
            bail!("delete {id}: {answer}");
        }
        Ok(())
    }

    fn ask(&mut self, command: &[u8]) -> Result<String> {
        self.stream.get_mut().write_all(command)?;
        let mut answer = String::new();
        self.stream.read_line(&mut answer)?;
        Ok(answer.trim_end().to_owned())
    }
}
