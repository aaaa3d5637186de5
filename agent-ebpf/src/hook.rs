//! Pure: the programs by name and number, as both sides of the ABI know them.

macro_rules! hooks {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// The programs, in the order in which a socket meets them. Each counts its runs in
        /// `STATS`, under its own number.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Hook { $($(#[$doc])* $name,)* }

        impl Hook {
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The name of the program in the object.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

hooks! {
    SockCreate = "sock_create";
    SockRelease = "sock_release";
    Connect4 = "connect4";
    Connect6 = "connect6";
    Sendmsg4 = "sendmsg4";
    Sendmsg6 = "sendmsg6";
    Recvmsg4 = "recvmsg4";
    Recvmsg6 = "recvmsg6";
    Getpeername4 = "getpeername4";
    Getpeername6 = "getpeername6";
    Bind4 = "bind4";
    Bind6 = "bind6";
    /// Not `sockops`: aya 0.14 takes that for the name of a section.
    SockOps = "sock_ops";
    Egress = "egress";
}

impl Hook {
    /// The hook with this number, as events carry it.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

macro_rules! closed {
    ($($name:ident = $text:literal;)*) => {
        /// The programs that refuse whoever is no agent, and leave agents to the programs above.
        /// They stand where agents will be, so that a group is closed before its agent is known.
        /// What they refuse is told as a refusal of the hook at which they stand.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Closed { $($name,)* }

        impl Closed {
            /// The one that drops packets first: it alone leaves nothing to the wire.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The name of the program in the object.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Where it stands.
            pub const fn hook(self) -> Hook {
                match self { $(Self::$name => Hook::$name,)* }
            }
        }
    };
}

closed! {
    Egress = "closed_egress";
    SockCreate = "closed_sock_create";
    Connect4 = "closed_connect4";
    Connect6 = "closed_connect6";
    Sendmsg4 = "closed_sendmsg4";
    Sendmsg6 = "closed_sendmsg6";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_are_numbered_as_listed() {
        for (i, hook) in Hook::ALL.iter().enumerate() {
            assert_eq!(*hook as usize, i);
            assert_eq!(Hook::from_code(i as u8), Some(*hook));
        }
        assert_eq!(Hook::from_code(Hook::ALL.len() as u8), None);
    }

    #[test]
    fn a_closed_program_is_named_after_its_hook() {
        for closed in Closed::ALL {
            assert_eq!(closed.name(), format!("closed_{}", closed.hook().name()));
        }
    }
}
