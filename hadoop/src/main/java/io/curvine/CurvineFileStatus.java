package io.curvine;

import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.permission.FsPermission;

/** A status that says which file it is of, and of which content. */
final class CurvineFileStatus extends FileStatus {
  private static final long serialVersionUID = 1L;
  private final long inode;
  private final long contentVersion;

  private CurvineFileStatus(Reply reply, Path path, int kind, long size, long blockBytes, int replicas, int mode) {
    super(size, kind == 1, kind == 1 ? 0 : replicas, kind == 1 ? 0 : blockBytes, reply.number(), reply.number(),
        new FsPermission((short) (mode & 01777)), reply.text(), reply.text(), target(kind, reply.text()), path,
        attributes(reply.flag(), false, false, false));
    inode = reply.number();
    contentVersion = reply.number();
  }

  /** As the native library writes it: the fields in their order. */
  static CurvineFileStatus read(Reply reply, Path path) {
    return new CurvineFileStatus(reply, path, reply.small(), reply.number(), reply.number(), reply.small(),
        reply.integer());
  }

  private static Path target(int kind, String target) {
    return kind == 2 ? new Path(target) : null;
  }

  /** The number of the file, whatever its name is. */
  long inode() {
    return inode;
  }

  /** Grows whenever the content changes. */
  long contentVersion() {
    return contentVersion;
  }
}
