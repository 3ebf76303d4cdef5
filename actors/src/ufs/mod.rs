//! Under file systems through OpenDAL.
