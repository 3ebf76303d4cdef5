package io.curvine;

/** What may be asked of the native library. A test there compares this table with its own. */
enum Call {
  CONNECT(1),
  DISCONNECT(2),
  STAT(3),
  LIST(4),
  MAKE_DIR(5),
  DELETE(6),
  RENAME(7),
  SET_MODE(8),
  SET_OWNER(9),
  SET_TIMES(10),
  TRUNCATE(11),
  LOCATE(12),
  SUMMARIZE(13),
  STAT_FS(14),
  GET_XATTR(15),
  LIST_XATTRS(16),
  SET_XATTR(17),
  REMOVE_XATTR(18),
  SYMLINK(19),
  OPEN(20),
  CREATE(21),
  APPEND(22),
  READ(23),
  WRITE(24),
  FLUSH(25),
  CLOSE(26),
  CONCAT(27),
  CHECKSUM(28),
  OPEN_HANDLE(29),
  SET_REPLICATION(30),
  MOUNTS(31),
  GET_ACL(32),
  CHANGE_ACL(33),
  IS_CLOSED(34),
  REVOKE_LEASE(35);

  final int code;

  Call(int code) {
    this.code = code;
  }
}
