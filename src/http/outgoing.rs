//! The body of a request on its way to a pod, whatever its type was.

use std::{
    error::Error,
    pin::Pin,
    sync::{Arc, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::{Buf, Bytes};
use pin_project_lite::pin_project;

#[expect(
    clippy::disallowed_types,
    reason = "one request's, held while one frame is taken"
)]
type Mutex<T> = std::sync::Mutex<T>;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

pub(super) type Source = Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>;

/// More than this is not kept for another try. linkerd2-proxy's `ReplayBody` keeps as much
/// (`linkerd/http/retry/src/replay.rs`): bodies of calls, not uploads.
const KEPT: usize = 64 * 1024;

/// A request's body, if it has one. Connections need not know the user's type, so one pool serves all.
///
/// In one word, for a request is moved a dozen times on its way to the wire: with that word, and with what hyper
/// adds to it, it is as long as glibc's `memcpy` moves without a loop (256 bytes, counted on x86-64).
pub(super) struct Outgoing(Option<Box<Way>>);

enum Way {
    /// Can be sent once. It comes back with a request that no pod saw.
    Once(Source),
    /// Can be sent again.
    Taped(Reader),
}

impl Outgoing {
    /// Nothing: most requests.
    pub(super) const EMPTY: Self = Self(None);

    pub(super) fn once(source: Source) -> Self {
        Self(Some(Box::new(Way::Once(source))))
    }

    pub(super) fn taped(reader: Reader) -> Self {
        Self(Some(Box::new(Way::Taped(reader))))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.0.as_deref_mut() {
            None => Poll::Ready(None),
            Some(Way::Once(source)) => source.as_mut().poll_frame(cx),
            Some(Way::Taped(reader)) => reader.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.0.as_deref() {
            None => true,
            Some(Way::Once(source)) => source.is_end_stream(),
            Some(Way::Taped(reader)) => reader.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.0.as_deref() {
            None => SizeHint::with_exact(0),
            Some(Way::Once(source)) => source.size_hint(),
            Some(Way::Taped(reader)) => reader.size_hint(),
        }
    }
}

/// A body that is kept while it is read, so that another try can read it again: from its start, and on
/// from where the first came to.
pub(super) struct Tape {
    state: Mutex<State>,
    hint: SizeHint,
}

struct State {
    /// Until its end is reached.
    source: Option<Source>,
    kept: Vec<Bytes>,
    bytes: usize,
    trailers: Option<HeaderMap>,
    /// Who may take more from the source: the latest. An earlier one has failed, or is about to.
    reader: u32,
    /// Too large to be kept, or failed: nobody reads it again.
    lost: bool,
}

/// One reading of a tape.
pub(super) struct Reader {
    tape: Arc<Tape>,
    id: u32,
    next: usize,
    bytes: u64,
    read_trailers: bool,
}

impl Tape {
    pub(super) fn of(source: Source) -> Arc<Self> {
        let hint = source.size_hint();
        let state = State {
            source: Some(source),
            kept: Vec::new(),
            bytes: 0,
            trailers: None,
            reader: 0,
            lost: false,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            hint,
        })
    }

    /// Reads it from the start, unless a part is lost. Whoever reads it so far can go on only if all has
    /// been taken from the source.
    pub(super) fn read(self: &Arc<Self>) -> Option<Reader> {
        let mut state = self.state();
        if state.lost {
            return None;
        }
        state.reader += 1;
        Some(Reader {
            tape: Arc::clone(self),
            id: state.reader,
            next: 0,
            bytes: 0,
            read_trailers: false,
        })
    }

    /// Whether nobody can read it any more.
    pub(super) fn is_lost(&self) -> bool {
        self.state().lost
    }

    /// Whether several can read it at once.
    pub(super) fn is_complete(&self) -> bool {
        let state = self.state();
        state.source.is_none() && !state.lost
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The next frame from the source, which is kept if there is room.
    fn poll_source(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(source) = &mut self.source else {
            return Poll::Ready(None);
        };
        let frame = match ready!(source.as_mut().poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.lost = true;
                return Poll::Ready(Some(Err(error)));
            }
            None => {
                self.source = None;
                return Poll::Ready(None);
            }
        };
        if source.is_end_stream() {
            self.source = None;
        }
        if let Some(data) = frame.data_ref() {
            self.bytes += data.len();
            self.lost |= self.bytes > KEPT;
            if self.lost {
                self.kept.clear();
            } else {
                self.kept.push(data.clone());
            }
        } else {
            self.trailers = frame.trailers_ref().cloned();
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Reader {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut state = self.tape.state();
        if let Some(data) = state.kept.get(self.next) {
            self.next += 1;
            self.bytes += data.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if self.is_overtaken(&state) {
            return Poll::Ready(Some(Err("another try goes on with this body".into())));
        }
        if state.source.is_none() {
            let trailers = state.trailers.clone().filter(|_| !self.read_trailers);
            self.read_trailers = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(state.poll_source(cx));
        if let Some(Ok(frame)) = &frame {
            self.next = state.kept.len();
            self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            self.read_trailers |= frame.is_trailers();
        }
        Poll::Ready(frame)
    }

    /// Whether what comes next is a later reader's. What that one has lost must not look like the end.
    fn is_overtaken(&self, state: &State) -> bool {
        self.id != state.reader && (state.lost || state.source.is_some())
    }

    fn is_over(&self) -> bool {
        let state = self.tape.state();
        state.source.is_none()
            && !self.is_overtaken(&state)
            && self.next >= state.kept.len()
            && (self.read_trailers || state.trailers.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        match self.tape.hint.exact() {
            Some(all) => SizeHint::with_exact(all.saturating_sub(self.bytes)),
            None => SizeHint::default(),
        }
    }
}

/// The user's body, with frames and errors of one type.
pub(super) fn source<B>(body: B) -> Source
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    Box::pin(Plain { body })
}

pin_project! {
    struct Plain<B> {
        #[pin]
        body: B,
    }
}

impl<B> Body for Plain<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(self.project().body.poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame
                // `Bytes` gives itself, without copying.
                .map(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
                .map_err(Into::into)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
    use tokio::sync::mpsc;

    fn stream(frames: Vec<Frame<Bytes>>) -> UnsyncBoxBody<Bytes, BoxError> {
        let frames = frames.into_iter().map(Ok::<_, BoxError>);
        StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
    }

    fn read(tape: &Arc<Tape>) -> (Vec<u8>, Option<HeaderMap>) {
        let body = Outgoing::taped(tape.read().unwrap());
        let all = body.collect().now_or_never().unwrap().unwrap();
        let trailers = all.trailers().cloned();
        (all.to_bytes().to_vec(), trailers)
    }

    #[test]
    fn a_body_is_read_again_with_its_trailers() {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, "x".parse().unwrap())]);
        let frames = vec![
            Frame::data("one ".into()),
            Frame::data("two".into()),
            Frame::trailers(trailers.clone()),
        ];
        let tape = Tape::of(source(stream(frames)));
        for _ in 0..3 {
            assert_eq!(read(&tape), (b"one two".to_vec(), Some(trailers.clone())));
        }
    }

    #[test]
    fn the_length_is_known_to_each_reader() {
        let tape = Tape::of(source(Full::<Bytes>::from("hello")));
        for _ in 0..2 {
            let mut reader = Outgoing::taped(tape.read().unwrap());
            assert_eq!(reader.size_hint().exact(), Some(5));
            assert!(!reader.is_end_stream());
            reader.frame().now_or_never().unwrap().unwrap().unwrap();
            assert_eq!(reader.size_hint().exact(), Some(0));
            assert!(reader.is_end_stream());
        }
    }

    #[tokio::test]
    async fn the_second_reader_goes_on_where_the_first_stopped() {
        let (send, mut receive) = mpsc::unbounded_channel();
        let frames = futures_util::stream::poll_fn(move |cx| receive.poll_recv(cx));
        let tape = Tape::of(source(StreamBody::new(frames)));
        let mut first = Outgoing::taped(tape.read().unwrap());
        send.send(Ok::<_, BoxError>(Frame::data(Bytes::from("one "))))
            .unwrap();
        first.frame().await.unwrap().unwrap();
        assert!(!tape.is_complete());

        let second = Outgoing::taped(tape.read().unwrap());
        assert!(
            first.frame().await.unwrap().is_err(),
            "it must not take more"
        );
        send.send(Ok(Frame::data(Bytes::from("two")))).unwrap();
        drop(send);
        assert_eq!(second.collect().await.unwrap().to_bytes(), "one two");
        assert!(tape.is_complete());
    }

    #[test]
    fn what_is_too_large_is_passed_on_but_not_read_again() {
        let frames = (0..5).map(|_| Frame::data(Bytes::from(vec![7; KEPT / 4])));
        let tape = Tape::of(source(stream(frames.collect())));
        assert_eq!(read(&tape).0.len(), KEPT / 4 * 5);
        assert!(tape.read().is_none());
        assert!(!tape.is_complete());
    }

    #[test]
    fn an_earlier_reader_does_not_take_what_is_lost_for_the_end() {
        let frames = (0..5).map(|_| Frame::data(Bytes::from(vec![7; KEPT / 4])));
        let tape = Tape::of(source(stream(frames.collect())));
        let mut first = Outgoing::taped(tape.read().unwrap());
        first.frame().now_or_never().unwrap().unwrap().unwrap();
        assert_eq!(read(&tape).0.len(), KEPT / 4 * 5);
        assert!(!first.is_end_stream(), "four frames are missing");
        assert!(first.frame().now_or_never().unwrap().unwrap().is_err());
    }
}
