package io.curvine;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Optional;
import org.apache.hadoop.fs.InvalidPathHandleException;
import org.apache.hadoop.fs.Options.HandleOpt;
import org.apache.hadoop.fs.PathHandle;

/** A file by its number, and what must not have become of it meanwhile. */
final class CurvinePathHandle implements PathHandle {
  private static final long serialVersionUID = 1L;
  /** Begins the bytes of a handle: what they are, and how they go on. */
  private static final int FORMAT = 0x43560001;
  private static final long ANY = -1;
  final String path;
  final long inode;
  /** The content's version; -1: any. */
  final long contentVersion;
  /** Whether it may have another name by now. */
  final boolean mayMove;

  CurvinePathHandle(String path, CurvineFileStatus status, HandleOpt... options) {
    Optional<HandleOpt.Data> data = HandleOpt.getOpt(HandleOpt.Data.class, options);
    Optional<HandleOpt.Location> location = HandleOpt.getOpt(HandleOpt.Location.class, options);
    this.path = path;
    inode = status.inode();
    contentVersion = data.map(HandleOpt.Data::allowChange).orElse(false) ? ANY : status.contentVersion();
    mayMove = location.map(HandleOpt.Location::allowChange).orElse(false);
  }

  /** @throws InvalidPathHandleException if the bytes are of no handle of this file system */
  CurvinePathHandle(ByteBuffer bytes) throws InvalidPathHandleException {
    ByteBuffer in = bytes.duplicate();
    if (in.remaining() < 21 || in.getInt() != FORMAT) {
      throw new InvalidPathHandleException("this is no path handle of Curvine; get one with getPathHandle()");
    }
    inode = in.getLong();
    contentVersion = in.getLong();
    mayMove = in.get() != 0;
    path = StandardCharsets.UTF_8.decode(in).toString();
  }

  @Override
  public ByteBuffer bytes() {
    byte[] name = path.getBytes(StandardCharsets.UTF_8);
    ByteBuffer out = ByteBuffer.allocate(21 + name.length);
    out.putInt(FORMAT).putLong(inode).putLong(contentVersion).put((byte) (mayMove ? 1 : 0)).put(name);
    out.flip();
    return out.asReadOnlyBuffer();
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof PathHandle && bytes().equals(((PathHandle) other).bytes());
  }

  @Override
  public int hashCode() {
    return bytes().hashCode();
  }

  @Override
  public String toString() {
    return path + " (inode " + inode + (contentVersion == ANY ? "" : ", content " + contentVersion)
        + (mayMove ? ", wherever it is)" : ")");
  }
}
