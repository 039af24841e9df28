//! What a worker's I/O has done since it started: plain numbers, only ever growing.

/// Cumulative I/O counters of one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoCounters {
    /// Datagrams handed to the worker.
    pub rx_datagrams: u64,
    /// Their UDP payload bytes.
    pub rx_bytes: u64,
    /// Receives that brought two datagrams or more in one piece.
    pub rx_trains: u64,
    /// Datagrams in them.
    pub rx_train_datagrams: u64,
    /// Datagrams larger than a worker takes, and whatever was larger than a receive buffer, dropped.
    pub rx_truncated: u64,
    /// Datagrams whose sender or header could not be read, dropped.
    pub rx_malformed: u64,
    /// How often all receive buffers were in use; what came more waited in the socket.
    pub rx_starved: u64,
    /// How often a multishot receive ended, for whatever reason, and was started again.
    pub rx_rearmed: u64,
    /// Receives that ended with any other error.
    pub rx_errors: u64,
    /// Datagrams given to the kernel, failures included.
    pub tx_datagrams: u64,
    /// Their UDP payload bytes.
    pub tx_bytes: u64,
    /// Sends of two datagrams or more.
    pub tx_trains: u64,
    /// Datagrams in them.
    pub tx_train_datagrams: u64,
    /// Trains that were refused and went out as single datagrams.
    pub tx_trains_refused: u64,
    /// Not sent: the socket's send buffer is full (`EAGAIN`).
    pub tx_would_block: u64,
    /// Not sent: the device queue is full or memory is short (`ENOBUFS`, `ENOMEM`).
    pub tx_no_buffers: u64,
    /// Not sent: a firewall rule or policy (`EPERM`, `EACCES`).
    pub tx_refused: u64,
    /// Not sent: no route, network or host down, local address gone.
    pub tx_unreachable: u64,
    /// Not sent: larger than the path allows (`EMSGSIZE`).
    pub tx_too_long: u64,
    /// Not sent: no socket of that address family.
    pub tx_no_socket: u64,
    /// Not sent: any other error.
    pub tx_other: u64,
    /// Turns of the loop: each waits once.
    pub turns: u64,
    /// Kernel entries; with io_uring at most one per turn, unless a batch is larger than the submission queue.
    pub enters: u64,
    /// Wake-ups by other threads that reached the driver.
    pub wakes: u64,
}

impl IoCounters {
    /// All datagrams that were meant to be sent and were not.
    pub fn tx_failed(&self) -> u64 {
        self.tx_would_block
            + self.tx_no_buffers
            + self.tx_refused
            + self.tx_unreachable
            + self.tx_too_long
            + self.tx_no_socket
            + self.tx_other
    }

    /// Counts a failed send; `errno` is positive.
    pub(super) fn note_send_error(&mut self, errno: i32) {
        let counter = match errno {
            libc::EAGAIN => &mut self.tx_would_block,
            libc::ENOBUFS | libc::ENOMEM => &mut self.tx_no_buffers,
            libc::EPERM | libc::EACCES => &mut self.tx_refused,
            libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EHOSTDOWN | libc::EADDRNOTAVAIL => {
                &mut self.tx_unreachable
            }
            libc::EMSGSIZE => &mut self.tx_too_long,
            _ => &mut self.tx_other,
        };
        *counter += 1;
    }
}
