//! Pure: the wire format's admission and the shapes of answers. What is not exactly one ordinary
//! question is refused before its name is looked at; what is answered carries nothing of the
//! query but its id, its question (in the case it was asked in, for resolvers that check it) and
//! the flags that the standards tell a server to copy.

use hickory_proto::op::{
    Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode,
};
use hickory_proto::rr::{Name, RData, Record, rdata::SOA};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, DecodeError};

/// Seconds that an agent may cache an answer, positive or negative. An answer cannot change while
/// the session lives; the value only bounds what a cache holds after a policy was reloaded.
pub const TTL: u32 = 60;

/// The largest UDP answer, and what is said of it in EDNS: it fits every path without fragments.
pub const UDP_PAYLOAD: u16 = 1232;

/// The largest UDP answer to a client that does not speak EDNS (RFC 1035).
const PLAIN_UDP_PAYLOAD: u16 = 512;

/// More additional records than any client sends (an OPT, and a TSIG at most).
const MAX_ADDITIONALS: u16 = 4;

/// What the bytes of a query turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// One question, which may be answered.
    Question(Question),
    /// Not answerable: the sender is told this code and nothing else.
    Refuse { head: Metadata, code: ResponseCode },
    /// Too short to have an id, or itself an answer: answering it could loop.
    Ignore,
}

/// One question and what its answer must repeat of the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    head: Metadata,
    /// Name, type and class as asked.
    pub query: Query,
    edns: Option<ClientEdns>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ClientEdns {
    version: u8,
    max_payload: u16,
    dnssec_ok: bool,
}

/// What stands in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Records of the asked name.
    Data(Vec<RData>),
    /// The name exists and has no record of this type.
    NoData,
    /// The name does not exist.
    NoSuchName,
    /// Nothing but a code.
    Code(ResponseCode),
}

/// Reads a query strictly: one question, no records but additional ones, nothing behind it.
pub fn parse(bytes: &[u8]) -> Parsed {
    let mut decoder = BinDecoder::new(bytes);
    let Ok(header) = Header::read(&mut decoder) else {
        return Parsed::Ignore;
    };
    if header.message_type == MessageType::Response {
        return Parsed::Ignore;
    }
    let head = answer_head(&header);
    if header.op_code != OpCode::Query {
        return Parsed::Refuse { head, code: ResponseCode::NotImp };
    }
    match read_body(&header, &mut decoder) {
        Ok((query, edns)) => Parsed::Question(Question { head, query, edns }),
        Err(_) => Parsed::Refuse { head, code: ResponseCode::FormErr },
    }
}

/// Why a body was not admitted; the sender only learns FORMERR.
struct NotAQuestion;

impl From<DecodeError> for NotAQuestion {
    fn from(_: DecodeError) -> Self {
        Self
    }
}

fn read_body(
    header: &Header,
    decoder: &mut BinDecoder<'_>,
) -> Result<(Query, Option<ClientEdns>), NotAQuestion> {
    let counts = header.counts;
    if counts.queries != 1 || counts.answers != 0 || counts.authorities != 0 {
        return Err(NotAQuestion);
    }
    if counts.additionals > MAX_ADDITIONALS || header.truncation {
        return Err(NotAQuestion);
    }
    let query = Query::read(decoder)?;
    let (_, edns, _) = Message::read_records(
        decoder,
        usize::from(counts.additionals),
        true, // these are additional records
        header.op_code,
    )?;
    if !decoder.is_empty() {
        return Err(NotAQuestion);
    }
    let edns = edns.map(|e| ClientEdns {
        version: e.version(),
        max_payload: e.max_payload(),
        dnssec_ok: e.flags().dnssec_ok,
    });
    Ok((query, edns))
}

/// The head of every answer: the query's id, opcode, RD and CD. RA is set because stub resolvers
/// skip servers without it; AD and AA are clear because nothing here is validated or delegated.
fn answer_head(header: &Header) -> Metadata {
    let mut head = Metadata::response_from_request(header);
    head.recursion_available = true;
    head
}

fn message(mut head: Metadata, code: ResponseCode) -> Message {
    head.response_code = code;
    let mut message = Message::response(head.id, head.op_code);
    message.metadata = head;
    message
}

/// The answer to a query that is refused for its form: a header, and the question nowhere.
pub fn refusal(head: Metadata, code: ResponseCode) -> Option<Vec<u8>> {
    message(head, code).to_vec().ok()
}

impl Question {
    /// Whether the client speaks an EDNS version other than 0, which must be told so (BADVERS).
    pub fn unknown_edns_version(&self) -> bool {
        self.edns.is_some_and(|e| e.version != 0)
    }

    /// The most bytes that an answer to this question over UDP may have.
    pub fn udp_limit(&self) -> usize {
        let asked = self.edns.map_or(PLAIN_UDP_PAYLOAD, |e| e.max_payload);
        usize::from(asked.clamp(PLAIN_UDP_PAYLOAD, UDP_PAYLOAD))
    }

    /// The bytes of an answer of at most `limit` bytes; longer ones lose their records and gain
    /// the truncation bit, on which clients ask again over TCP. `None` only if the encoder fails,
    /// and then the client hears nothing, which is a refusal.
    pub fn answer(&self, reply: Reply, limit: usize) -> Option<Vec<u8>> {
        let (code, data, negative) = match reply {
            Reply::Data(data) => (ResponseCode::NoError, data, false),
            Reply::NoData => (ResponseCode::NoError, Vec::new(), true),
            Reply::NoSuchName => (ResponseCode::NXDomain, Vec::new(), true),
            Reply::Code(code) => (code, Vec::new(), false),
        };
        let mut message = message(self.head, code);
        message.add_query(self.query.clone());
        let owner = self.query.name();
        message.add_answers(data.into_iter().map(|d| Record::from_rdata(owner.clone(), TTL, d)));
        message.add_authorities(negative.then(negative_soa));
        if let Some(edns) = self.edns {
            message.set_edns(server_edns(edns));
        }
        let bytes = message.to_vec().ok()?;
        if bytes.len() <= limit { Some(bytes) } else { message.truncate().to_vec().ok() }
    }
}

/// Our side of EDNS: version 0, our size, the client's DO bit (RFC 3225) and no option at all, so
/// neither cookies nor client subnets nor padding pass in either direction.
fn server_edns(client: ClientEdns) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD);
    edns.set_dnssec_ok(client.dnssec_ok);
    edns
}

/// Lets caches keep a negative answer (RFC 2308). It stands at the root, which is above every
/// name, and its last field is the time to keep it.
fn negative_soa() -> Record {
    let soa = SOA::new(Name::root(), Name::root(), 1, 3600, 600, 86_400, TTL);
    Record::from_rdata(Name::root(), TTL, RData::SOA(soa))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::rr::{DNSClass, RecordType, rdata};

    use super::*;

    fn query() -> Message {
        let mut m = Message::new(7, MessageType::Query, OpCode::Query);
        m.metadata.recursion_desired = true;
        let name = Name::from_ascii("WwW.Example.").unwrap();
        m.add_query(Query::query(name, RecordType::A));
        m
    }

    fn with_edns(f: impl FnOnce(&mut Edns)) -> Message {
        let mut m = query();
        let mut edns = Edns::new();
        f(&mut edns);
        m.set_edns(edns);
        m
    }

    fn question(m: &Message) -> Question {
        match parse(&m.to_vec().unwrap()) {
            Parsed::Question(q) => q,
            other => panic!("{other:?}"),
        }
    }

    fn refused(bytes: &[u8]) -> Option<ResponseCode> {
        match parse(bytes) {
            Parsed::Refuse { head, code } => {
                let answer = Message::from_vec(&refusal(head, code).unwrap()).unwrap();
                assert_eq!(answer.response_code, code);
                assert_eq!(answer.metadata.id, 7);
                assert!(answer.queries.is_empty());
                Some(code)
            }
            Parsed::Question(_) | Parsed::Ignore => None,
        }
    }

    #[test]
    fn the_answer_repeats_the_question_in_its_case_and_the_right_flags() {
        let mut m = query();
        m.metadata.authentic_data = true;
        m.metadata.checking_disabled = true;
        let data = vec![RData::A(rdata::A(Ipv4Addr::new(198, 18, 1, 0)))];
        let bytes = question(&m).answer(Reply::Data(data), 512).unwrap();
        let answer = Message::from_vec(&bytes).unwrap();
        assert!(answer.queries[0].name().eq_case(m.queries[0].name()));
        assert!(answer.answers[0].name.eq_case(m.queries[0].name()));
        assert_eq!(answer.answers[0].ttl, TTL);
        let h = answer.metadata;
        assert_eq!(h.message_type, MessageType::Response);
        assert!(h.recursion_available && h.recursion_desired && h.checking_disabled);
        assert!(!h.authentic_data && !h.authoritative && !h.truncation);
        assert!(answer.edns.is_none(), "a client without EDNS gets none");
    }

    #[test]
    fn what_is_not_one_question_is_refused_with_its_code() {
        assert_eq!(refused(&query().to_vec().unwrap()), None, "control");
        let mut cases: Vec<(&str, Message, ResponseCode)> = Vec::new();
        let mut none = query();
        none.queries.clear();
        cases.push(("no question", none, ResponseCode::FormErr));
        let mut two = query();
        two.add_query(query().queries.remove(0));
        cases.push(("two questions", two, ResponseCode::FormErr));
        let record = Record::from_rdata(Name::root(), 1, RData::A(rdata::A(Ipv4Addr::LOCALHOST)));
        let mut answer = query();
        answer.add_answer(record.clone());
        cases.push(("an answer record", answer, ResponseCode::FormErr));
        let mut authority = query();
        authority.add_authority(record.clone());
        cases.push(("an authority record", authority, ResponseCode::FormErr));
        let mut many = query();
        many.add_additionals(std::iter::repeat_n(record, 5));
        cases.push(("many additional records", many, ResponseCode::FormErr));
        let mut truncated = query();
        truncated.metadata.truncation = true;
        cases.push(("the truncation bit", truncated, ResponseCode::FormErr));
        for op in [OpCode::Status, OpCode::Notify, OpCode::Update, OpCode::Unknown(1)] {
            let mut m = query();
            m.metadata.op_code = op;
            cases.push(("another opcode", m, ResponseCode::NotImp));
        }
        for (what, message, code) in cases {
            assert_eq!(refused(&message.to_vec().unwrap()), Some(code), "{what}");
        }
    }

    #[test]
    fn broken_bytes_are_refused_or_ignored() {
        let whole = query().to_vec().unwrap();
        for len in 0..whole.len() {
            match parse(&whole[..len]) {
                Parsed::Ignore => assert!(len < 12, "{len}"),
                Parsed::Refuse { code, .. } => assert_eq!(code, ResponseCode::FormErr, "{len}"),
                Parsed::Question(_) => panic!("a prefix of {len} bytes was read as a question"),
            }
        }
        let mut trailing = whole.clone();
        trailing.push(0);
        assert_eq!(refused(&trailing), Some(ResponseCode::FormErr));

        for (what, name) in [
            ("a pointer to itself", &[0xc0, 12][..]),
            ("a pointer forward", &[0xc0, 40]),
            ("a label, then a pointer to that label", &[1, b'a', 0xc0, 12]),
            ("the reserved label type 0x40", &[0x41, b'a', 0]),
            ("a label beyond the message", &[63, b'a', 0]),
        ] {
            let mut bytes = whole[..12].to_vec();
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(&[0, 1, 0, 1]);
            assert_eq!(refused(&bytes), Some(ResponseCode::FormErr), "{what}");
        }

        let mut response = query();
        response.metadata.message_type = MessageType::Response;
        assert_eq!(parse(&response.to_vec().unwrap()), Parsed::Ignore);
    }

    #[test]
    fn edns_is_answered_without_options_and_two_are_an_error() {
        use hickory_proto::rr::rdata::opt::EdnsOption;
        let m = with_edns(|e| {
            e.set_max_payload(65_535);
            e.set_dnssec_ok(true);
            e.options_mut().insert(EdnsOption::Unknown(10, vec![1; 8]));
        });
        let q = question(&m);
        assert_eq!(q.udp_limit(), 1232);
        let answer = Message::from_vec(&q.answer(Reply::NoData, 512).unwrap()).unwrap();
        let edns = answer.edns.unwrap();
        assert_eq!((edns.version(), edns.max_payload()), (0, UDP_PAYLOAD));
        assert!(edns.flags().dnssec_ok && edns.options().as_ref().is_empty());

        let newer = question(&with_edns(|e| {
            e.set_version(1);
        }));
        assert!(newer.unknown_edns_version() && !q.unknown_edns_version());
        let bytes = newer.answer(Reply::Code(ResponseCode::BADVERS), 512).unwrap();
        let answer = Message::from_vec(&bytes).unwrap();
        assert_eq!(u16::from(answer.response_code), 16);
        assert_eq!(answer.edns.unwrap().version(), 0);

        let mut two = m.to_vec().unwrap();
        let opt = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
        two.extend_from_slice(&opt);
        two[11] = 2;
        assert_eq!(refused(&two), Some(ResponseCode::FormErr));
    }

    #[test]
    fn a_long_answer_over_udp_is_truncated_and_negative_ones_can_be_cached() {
        let q = question(&query());
        assert_eq!(q.udp_limit(), 512);
        let long = vec![RData::A(rdata::A(Ipv4Addr::LOCALHOST)); 40];
        let cut = q.answer(Reply::Data(long.clone()), q.udp_limit()).unwrap();
        let message = Message::from_vec(&cut).unwrap();
        assert!(cut.len() <= 512 && message.metadata.truncation && message.answers.is_empty());
        assert_eq!(message.queries, query().queries);
        let whole = q.answer(Reply::Data(long), usize::from(u16::MAX)).unwrap();
        let message = Message::from_vec(&whole).unwrap();
        assert!(!message.metadata.truncation && message.answers.len() == 40, "control");

        for (reply, code) in
            [(Reply::NoSuchName, ResponseCode::NXDomain), (Reply::NoData, ResponseCode::NoError)]
        {
            let message = Message::from_vec(&q.answer(reply, 512).unwrap()).unwrap();
            assert_eq!(message.response_code, code);
            assert!(message.answers.is_empty());
            let soa = &message.authorities[0];
            assert!(soa.name.is_root() && soa.dns_class == DNSClass::IN);
            let RData::SOA(data) = &soa.data else { panic!("{soa}") };
            assert_eq!((soa.ttl, data.minimum), (TTL, TTL));
        }
    }
}
