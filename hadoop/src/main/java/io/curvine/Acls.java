package io.curvine;

import org.apache.hadoop.fs.permission.AclEntry;
import org.apache.hadoop.fs.permission.AclEntryScope;
import org.apache.hadoop.fs.permission.AclEntryType;
import org.apache.hadoop.fs.permission.AclStatus;
import org.apache.hadoop.fs.permission.FsAction;
import org.apache.hadoop.fs.permission.FsPermission;

/** Access control lists as the native library reads and writes them. */
final class Acls {
  /** What becomes of a list: the numbers of the native library. */
  static final int SET = 0;
  static final int MODIFY = 1;
  static final int REMOVE = 2;
  static final int REMOVE_DEFAULT = 3;
  static final int CLEAR = 4;
  private static final AclEntryScope[] SCOPES = {AclEntryScope.ACCESS, AclEntryScope.DEFAULT};
  private static final AclEntryType[] TYPES = {
    AclEntryType.USER, AclEntryType.GROUP, AclEntryType.MASK, AclEntryType.OTHER,
  };

  private Acls() {
  }

  static void write(Request request, AclEntry entry) {
    FsAction permission = entry.getPermission();
    request.small(entry.getScope() == AclEntryScope.DEFAULT ? 1 : 0)
        .small(java.util.Arrays.asList(TYPES).indexOf(entry.getType()))
        .text(entry.getName())
        // What is to be removed needs none.
        .small(permission == null ? 0 : permission.ordinal());
  }

  /** The list with what a mode says beside it. */
  static AclStatus read(Reply reply) {
    FsPermission permission = new FsPermission((short) (reply.integer() & 01777));
    AclStatus.Builder status = new AclStatus.Builder()
        .owner(reply.text()).group(reply.text())
        .setPermission(permission).stickyBit(permission.getStickyBit());
    for (int left = reply.integer(); left > 0; left--) {
      AclEntry.Builder entry = new AclEntry.Builder()
          .setScope(SCOPES[reply.small()])
          .setType(TYPES[reply.small()]);
      String name = reply.text();
      if (!name.isEmpty()) {
        entry.setName(name);
      }
      status.addEntry(entry.setPermission(FsAction.values()[reply.small()]).build());
    }
    return status.build();
  }
}
