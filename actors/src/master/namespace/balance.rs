//! Whether the workers are being balanced, as operators say: replicated, so that the next leader goes on with it.

use curvine_protocol::Result;
use curvine_protocol::master::{BalanceEnd, BalanceRun};
use heed::RoTxn;
use serde::{Deserialize, Serialize};

use super::store::Dbs;

/// The name of the record in the state.
pub const BALANCE: &str = "balance";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    pub run: Option<BalanceRun>,
    /// How the last one ended.
    pub ended: Option<BalanceEnd>,
}

impl Dbs {
    /// # Errors
    /// Those of reading the state.
    pub fn balance(&self, txn: &RoTxn) -> Result<Balance> {
        Ok(self.meta_record(txn, BALANCE)?.unwrap_or_default())
    }
}
