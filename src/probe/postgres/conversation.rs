//! Asking and hearing: rounds of messages on one connection.

use std::{
    fmt,
    io::{self, ErrorKind},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    complaint::{Broken, Complaint},
    wire::{self, Column, Inbox, Malformed, Message, Reader},
};

/// TCP, or TLS over it.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// What the server reports of its settings, unasked, while it logs us in and with the end of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// `in_hot_standby`: it is a replica. Reported since version 14.
    pub(super) in_hot_standby: Option<bool>,
    /// `default_transaction_read_only`: a primary with it is fenced. Reported since version 14.
    pub(super) read_only: Option<bool>,
}

impl Settings {
    fn note(&mut self, body: &[u8]) -> Result<(), Malformed> {
        let mut reader = Reader(body);
        let mut text = || reader.text().ok_or(Malformed("a setting that ends early"));
        let (name, value) = (text()?, text()?);
        match name {
            b"in_hot_standby" => self.in_hot_standby = Some(value == b"on"),
            b"default_transaction_read_only" => self.read_only = Some(value == b"on"),
            _ => {}
        }
        Ok(())
    }
}

pub(super) struct Conversation {
    socket: Box<dyn Socket>,
    inbox: Inbox,
    settings: Settings,
    /// What ended it, if that was heard while nobody asked.
    end: Option<Broken>,
}

impl Conversation {
    pub(super) fn over(socket: Box<dyn Socket>) -> Self {
        Self {
            socket,
            inbox: Inbox::default(),
            settings: Settings::default(),
            end: None,
        }
    }

    pub(super) fn settings(&self) -> Settings {
        self.settings
    }

    pub(super) async fn say(&mut self, messages: &[u8]) -> Result<(), Broken> {
        if let Some(end) = self.end.take() {
            return Err(end);
        }
        let said = async {
            self.socket.write_all(messages).await?;
            self.socket.flush().await
        };
        match said.await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.last_words().await.unwrap_or(Broken::Io(error))),
        }
    }

    /// The next message that matters; errors and the end of the stream are `Err`.
    pub(super) async fn hear(&mut self) -> Result<Message, Broken> {
        loop {
            let Some(message) = self.taken()? else {
                self.receive().await?;
                continue;
            };
            match message.tag {
                b'S' => self.settings.note(&message.body)?,
                tag @ (b'E' | b'N') => {
                    let complaint = Complaint::read(&message.body)?;
                    if tag == b'E' || complaint.is_end() {
                        return Err(Broken::Server(complaint));
                    }
                }
                b'A' => {} // a notification
                _ => return Ok(message),
            }
        }
    }

    /// A round without a question: what has changed is reported with its end.
    pub(super) async fn sync(&mut self) -> Result<(), Broken> {
        self.say(&wire::sync()).await?;
        self.ready().await
    }

    /// Waits for the end of a round.
    pub(super) async fn ready(&mut self) -> Result<(), Broken> {
        match self.hear().await?.tag {
            b'Z' => Ok(()),
            _ => Err(Malformed("a message that was not asked for").into()),
        }
    }

    /// A round that runs a statement which answers with one row: `Ok(Err(..))` if the server refuses it.
    pub(super) async fn ask(
        &mut self,
        mut messages: Vec<u8>,
    ) -> Result<Result<Vec<Column>, Complaint>, Broken> {
        messages.extend(wire::sync());
        self.say(&messages).await?;
        let mut answer = None;
        loop {
            match self.hear().await {
                // After an error the server skips what comes before the end of the round.
                Err(Broken::Server(error)) if !error.is_end() => answer = Some(Err(error)),
                Err(broken) => return Err(broken),
                Ok(message) => match message.tag {
                    b'D' => answer = Some(Ok(wire::row(&message.body)?)),
                    b'1' | b'2' | b'C' => {} // parsed, bound, complete
                    b'Z' => return Ok(answer.ok_or(Malformed("no row"))?),
                    _ => return Err(Malformed("a message that was not asked for").into()),
                },
            }
        }
    }

    /// Completes when the server says something by itself that matters: that the session ends, or that a role
    /// setting has changed.
    ///
    /// Cancel safe: what has come stays in the inbox, and what was understood is kept.
    pub(super) async fn interrupted(&mut self) {
        let before = self.settings;
        while self.end.is_none() && self.settings == before {
            if let Err(broken) = self.overhear().await {
                self.end = Some(broken);
            }
        }
    }

    async fn overhear(&mut self) -> Result<(), Broken> {
        let Some(message) = self.taken()? else {
            return self.receive().await;
        };
        match message.tag {
            b'S' => self.settings.note(&message.body)?,
            b'E' | b'N' => {
                let complaint = Complaint::read(&message.body)?;
                if complaint.is_end() {
                    return Err(Broken::Server(complaint));
                }
            }
            b'A' => {}
            _ => return Err(Malformed("a message that was not asked for").into()),
        }
        Ok(())
    }

    fn taken(&mut self) -> Result<Option<Message>, Broken> {
        self.inbox
            .take()
            .map_err(|malformed| match self.inbox.ancient_error() {
                Some(text) => Broken::Server(Complaint::without_process(text)),
                None => Broken::Malformed(malformed),
            })
    }

    /// Cancel safe: what is read is in the inbox.
    async fn receive(&mut self) -> Result<(), Broken> {
        match self.socket.read_buf(self.inbox.room()).await? {
            0 => Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
            _ => Ok(()),
        }
    }

    /// Why the server hung up, if it said so before: a write may fail first.
    async fn last_words(&mut self) -> Option<Broken> {
        loop {
            match self.hear().await {
                Err(Broken::Server(complaint)) => return Some(Broken::Server(complaint)),
                Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversation")
            .field("settings", &self.settings)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}
