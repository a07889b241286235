//! A strict decoder of the chunked transfer coding (RFC 9112, section 7.1), fed piece by piece.
//!
//! Extensions and trailers are bounded and thrown away. Every line must end with CR LF; anything else is refused.

use super::limits::{CHUNK_LINE_MAX, CHUNK_OVERHEAD_MAX};
use super::refusal::{BAD_CHUNK, HEAD_TOO_LARGE, Refusal, body_too_large};

/// Bytes of a plain chunk's own lines that are not counted as overhead: size, CR LF, CR LF.
const FREE_PER_CHUNK: usize = 12;
/// Digits of the largest size that is looked at; a longer number is too large for anything here.
const SIZE_DIGITS_MAX: usize = 12;

/// What the next bytes must be.
enum Expect {
    /// A line with the size of a chunk.
    Size,
    /// This many bytes of data.
    Data(usize),
    /// The CR LF after the data.
    DataEnd,
    /// A trailer field, or the empty line that ends the body.
    Trailer,
}

/// Decoder of one body.
pub(super) struct Chunked {
    expect: Expect,
    line: Vec<u8>,
    overhead: usize,
}

impl Chunked {
    pub(super) fn new() -> Self {
        Chunked { expect: Expect::Size, line: Vec::new(), overhead: 0 }
    }

    /// Decodes `input` onto the end of `body`. Gives the number of bytes used and whether the body is whole.
    pub(super) fn push(&mut self, input: &[u8], body: &mut Vec<u8>, body_max: usize) -> Result<(usize, bool), Refusal> {
        let mut at = 0;
        while at < input.len() {
            if let Expect::Data(left) = &mut self.expect {
                let count = (*left).min(input.len() - at);
                body.extend_from_slice(&input[at..at + count]);
                at += count;
                *left -= count;
                if *left == 0 {
                    self.expect = Expect::DataEnd;
                }
                continue;
            }
            let byte = input[at];
            at += 1;
            if self.push_line_byte(byte)? && self.end_line(body.len(), body_max)? {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// Adds one byte to the current line; `true` when it is complete, its CR LF cut off.
    fn push_line_byte(&mut self, byte: u8) -> Result<bool, Refusal> {
        let after_cr = self.line.last() == Some(&b'\r');
        match (after_cr, byte) {
            (true, b'\n') => {
                self.line.pop();
                return Ok(true);
            }
            (false, b'\r' | b'\t' | b' '..=b'~' | 0x80..) => {}
            _ => return Err(BAD_CHUNK),
        }
        if self.line.len() >= CHUNK_LINE_MAX {
            return Err(HEAD_TOO_LARGE);
        }
        self.line.push(byte);
        Ok(false)
    }

    /// Acts on a complete line; `true` when it was the last one.
    fn end_line(&mut self, body_len: usize, body_max: usize) -> Result<bool, Refusal> {
        let line = std::mem::take(&mut self.line);
        self.overhead += (line.len() + 2).saturating_sub(FREE_PER_CHUNK);
        if self.overhead > CHUNK_OVERHEAD_MAX {
            return Err(HEAD_TOO_LARGE);
        }
        match self.expect {
            Expect::Size => {
                let size = parse_size(&line)?;
                // `body_len` never exceeds `body_max`: every chunk was checked before its data was taken.
                if size > body_max - body_len {
                    return Err(body_too_large(body_max));
                }
                self.expect = if size == 0 { Expect::Trailer } else { Expect::Data(size) };
            }
            Expect::DataEnd if line.is_empty() => self.expect = Expect::Size,
            Expect::Trailer if line.is_empty() => return Ok(true),
            Expect::Trailer if line.contains(&b':') && !line.starts_with(b" ") && !line.starts_with(b"\t") => {
                // Many short trailers must end too, so each counts in full.
                self.overhead += FREE_PER_CHUNK;
            }
            Expect::DataEnd | Expect::Trailer | Expect::Data(_) => return Err(BAD_CHUNK),
        }
        // The buffer is reused: a body may have many lines.
        self.line = line;
        self.line.clear();
        Ok(false)
    }
}

/// The size on a chunk's first line: hexadecimal digits, then nothing or an extension after `;`. One that is too large for
/// a number is the largest there is.
fn parse_size(line: &[u8]) -> Result<usize, Refusal> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let well_ended = matches!(line.get(digits), None | Some(b';'));
    if digits == 0 || !well_ended {
        return Err(BAD_CHUNK);
    }
    if digits > SIZE_DIGITS_MAX {
        return Ok(usize::MAX);
    }
    let text = std::str::from_utf8(&line[..digits]).map_err(|_| BAD_CHUNK)?;
    let size = u64::from_str_radix(text, 16).map_err(|_| BAD_CHUNK)?;
    Ok(usize::try_from(size).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `input` in pieces of `step` bytes: the body and how many bytes were used.
    fn decode(input: &[u8], step: usize, max: usize) -> Result<(Vec<u8>, usize), Refusal> {
        let (mut decoder, mut body, mut used) = (Chunked::new(), Vec::new(), 0);
        for piece in input.chunks(step) {
            let (count, done) = decoder.push(piece, &mut body, max)?;
            used += count;
            if done {
                return Ok((body, used));
            }
        }
        panic!("the body has no end: {body:?}");
    }

    #[test]
    fn a_body_decodes_the_same_however_it_is_cut_and_leaves_the_next_request() {
        let input = b"4\r\nWiki\r\nA;x=y\r\npedia in\r\n\r\n0\r\nTrailer: z\r\n\r\nGET /";
        for step in 1..=input.len() {
            let (body, used) = decode(input, step, 14).unwrap();
            assert_eq!(body, b"Wikipedia in\r\n");
            assert_eq!(&input[used..], b"GET /");
        }
    }

    #[test]
    fn a_body_over_the_limit_is_refused_at_the_size_line() {
        assert_eq!(decode(b"4\r\nWiki\r\n1\r\n", 100, 4), Err(body_too_large(4)));
        assert_eq!(decode(b"FFFFFFFFFFFFFFFFFF\r\n", 100, 4), Err(body_too_large(4)));
    }

    #[test]
    fn crooked_framing_is_refused() {
        for input in [
            &b"4\nWiki\r\n0\r\n\r\n"[..],
            b"4\r\nWikiX\r\n",
            b"4\r\nWiki\n0\r\n\r\n",
            b"0x4\r\nWiki\r\n",
            b"+4\r\nWiki\r\n",
            b" 4\r\nWiki\r\n",
            b"4 \r\nWiki\r\n",
            b"\r\n",
            b"4\rX",
            b"4;\x01\r\n",
            b"0\r\nnot a field\r\n\r\n",
        ] {
            assert_eq!(decode(input, 100, 100), Err(BAD_CHUNK), "{:?}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let long = [b"1;".as_slice(), &[b'x'; CHUNK_LINE_MAX]].concat();
        assert_eq!(decode(&long, 100, 100), Err(HEAD_TOO_LARGE));
        let many = [b"0\r\n".as_slice(), &b"a:\r\n".repeat(CHUNK_OVERHEAD_MAX / FREE_PER_CHUNK + 2)].concat();
        assert_eq!(decode(&many, 100, 100), Err(HEAD_TOO_LARGE));
    }
}
