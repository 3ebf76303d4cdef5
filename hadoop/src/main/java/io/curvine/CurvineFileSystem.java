package io.curvine;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import org.apache.hadoop.fs.BlockLocation;
import org.apache.hadoop.fs.CommonPathCapabilities;
import org.apache.hadoop.fs.CompositeCrcFileChecksum;
import org.apache.hadoop.fs.CreateFlag;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileAlreadyExistsException;
import org.apache.hadoop.fs.FileChecksum;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.InvalidPathHandleException;
import org.apache.hadoop.fs.LeaseRecoverable;
import org.apache.hadoop.fs.LocatedFileStatus;
import org.apache.hadoop.fs.MultipartUploaderBuilder;
import org.apache.hadoop.fs.Options;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.PathFilter;
import org.apache.hadoop.fs.PathHandle;
import org.apache.hadoop.fs.RemoteIterator;
import org.apache.hadoop.fs.impl.FileSystemMultipartUploaderBuilder;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.fs.statistics.StoreStatisticNames;
import org.apache.hadoop.util.DataChecksum;
import org.apache.hadoop.util.Progressable;

/** Curvine for Hadoop: {@code cv://host:port,host:port/path}. What names mean is what HDFS means by them. */
public class CurvineFileSystem extends Namespace implements LeaseRecoverable {
  /** Lengths of blocks are multiples of it. */
  private static final long BLOCK_UNIT = 64 << 10;
  private static final long BLOCK_BYTES_MAX = 4L << 30;
  /** HDFS's default, for programs that want to know how to write a file with the same checksums. */
  private static final int BYTES_PER_CRC = 512;

  @Override
  public long getDefaultBlockSize() {
    return Key.BLOCK_SIZE.bytes(getConf());
  }

  @Override
  public FSDataInputStream open(Path path, int bufferSize) throws IOException {
    reads(StoreStatisticNames.OP_OPEN);
    try {
      Reply opened = about(Call.OPEN, path).make();
      long file = opened.number();
      return new FSDataInputStream(new CurvineInputStream(file, opened.number(), statistics, Counts.gatheredBy(counts)));
    } catch (CurvineException error) {
      if (error.is("IsADirectory")) {
        throw because(new FileNotFoundException(error.getMessage()), error);
      }
      throw error.expected();
    }
  }

  @Override
  protected PathHandle createPathHandle(FileStatus status, Options.HandleOpt... options) {
    if (!(status instanceof CurvineFileStatus) || !status.isFile()) {
      throw new IllegalArgumentException(
          status.getPath() + ": a path handle is made of the status of a file, as getFileStatus() and listStatus() give it");
    }
    return new CurvinePathHandle(absolute(status.getPath()), (CurvineFileStatus) status, options);
  }

  @Override
  public FSDataInputStream open(PathHandle given, int bufferSize) throws IOException {
    reads(StoreStatisticNames.OP_OPEN);
    CurvinePathHandle handle =
        given instanceof CurvinePathHandle ? (CurvinePathHandle) given : new CurvinePathHandle(given.bytes());
    Request open = about(Call.OPEN_HANDLE, new Path(handle.path))
        .number(handle.inode).number(handle.contentVersion).flag(handle.mayMove);
    try {
      Reply opened = open.make();
      long file = opened.number();
      return new FSDataInputStream(
          new CurvineInputStream(file, opened.number(), statistics, Counts.gatheredBy(counts)));
    } catch (CurvineException error) {
      if (error.is("Stale") || error.is("NotFound")) {
        throw because(new InvalidPathHandleException(handle + ": " + error.getMessage()), error);
      }
      throw error.expected();
    }
  }

  /** Parts are files; {@link #concat} makes one of them. */
  @Override
  public MultipartUploaderBuilder<?, ?> createMultipartUploader(Path base) throws IOException {
    return new FileSystemMultipartUploaderBuilder(this, base);
  }

  @Override
  public FSDataOutputStream create(Path path, FsPermission permission, boolean overwrite, int bufferSize,
      short replication, long blockSize, Progressable progress) throws IOException {
    return create(path, permission, overwrite, true, replication, blockSize);
  }

  @Override
  public FSDataOutputStream createNonRecursive(Path path, FsPermission permission, EnumSet<CreateFlag> flags,
      int bufferSize, short replication, long blockSize, Progressable progress) throws IOException {
    if (flags.contains(CreateFlag.APPEND)) {
      return append(path, bufferSize, progress);
    }
    return create(path, permission, flags.contains(CreateFlag.OVERWRITE), false, replication, blockSize);
  }

  private FSDataOutputStream create(Path path, FsPermission permission, boolean overwrite, boolean parents,
      short replication, long blockSize) throws IOException {
    changes(StoreStatisticNames.OP_CREATE);
    FsPermission wanted = permission == null ? FsPermission.getFileDefault() : permission;
    long units = Math.max(1, (Math.min(blockSize, BLOCK_BYTES_MAX) + BLOCK_UNIT - 1) / BLOCK_UNIT);
    Request create = about(Call.CREATE, path)
        .flag(overwrite)
        .flag(parents)
        .integer(wanted.applyUMask(FsPermission.getUMask(getConf())).toShort())
        .number(units * BLOCK_UNIT)
        // Hadoop's default leaves it to the cluster.
        .small(replication == getDefaultReplication(path) ? 0 : Math.min(replication, REPLICAS_MAX))
        .integer(unmasked(wanted));
    try {
      return new FSDataOutputStream(new CurvineOutputStream(create.make().number(), Counts.gatheredBy(counts)), statistics);
    } catch (CurvineException error) {
      if (error.is("IsADirectory")) {
        throw because(new FileAlreadyExistsException(error.getMessage()), error);
      }
      throw error.expected();
    }
  }

  @Override
  public FSDataOutputStream append(Path path, int bufferSize, Progressable progress) throws IOException {
    changes(StoreStatisticNames.OP_APPEND);
    Reply opened = about(Call.APPEND, path).ask();
    long file = opened.number();
    return new FSDataOutputStream(new CurvineOutputStream(file, Counts.gatheredBy(counts)), statistics, opened.number());
  }

  @Override
  public boolean truncate(Path path, long length) throws IOException {
    changes(StoreStatisticNames.OP_TRUNCATE);
    long size = getFileStatus(path).getLen();
    if (length < 0 || length > size) {
      throw new IllegalArgumentException(path + ": has " + size + " bytes and cannot be cut to " + length);
    }
    about(Call.TRUNCATE, path).number(length).ask();
    return true;
  }

  /** In one step; bytes are copied from the first block on that does not fit behind the one before it. */
  @Override
  public void concat(Path target, Path[] sources) throws IOException {
    statistics.incrementWriteOps(1);
    Request concat = about(Call.CONCAT, target).integer(sources.length);
    for (Path source : sources) {
      concat.text(absolute(source));
    }
    concat.ask();
  }

  /**
   * The composite CRC32C of the first bytes of a file, whatever its blocks: as HDFS's with
   * {@code dfs.checksum.combine.mode=COMPOSITE_CRC}.
   */
  @Override
  public FileChecksum getFileChecksum(Path path, long length) throws IOException {
    reads(StoreStatisticNames.OP_GET_FILE_CHECKSUM);
    if (length < 0) {
      throw new IllegalArgumentException(path + ": the checksum of " + length + " bytes");
    }
    try {
      int crc = about(Call.CHECKSUM, path).number(length).make().integer();
      return new CompositeCrcFileChecksum(crc, DataChecksum.Type.CRC32C, BYTES_PER_CRC);
    } catch (CurvineException error) {
      throw error.is("IsADirectory") ? because(new FileNotFoundException(error.getMessage()), error) : error.expected();
    }
  }

  /**
   * Takes a file away from whoever writes it, with what that one has flushed.
   *
   * @return whether it is closed; if not, the workers are still being told, and it is to be asked again
   */
  @Override
  public boolean recoverLease(Path path) throws IOException {
    statistics.incrementWriteOps(1);
    return ofWriter(Call.REVOKE_LEASE, path);
  }

  @Override
  public boolean isFileClosed(Path path) throws IOException {
    statistics.incrementReadOps(1);
    return ofWriter(Call.IS_CLOSED, path);
  }

  private boolean ofWriter(Call call, Path path) throws IOException {
    try {
      return about(call, path).make().flag();
    } catch (CurvineException error) {
      // In the words of HDFS, which programs look for.
      if (error.is("NotFound") || error.is("NotADirectory")) {
        throw because(new FileNotFoundException("File does not exist: " + error.getMessage()), error);
      }
      if (error.is("IsADirectory")) {
        throw because(new FileNotFoundException("Path is not a file: " + error.getMessage()), error);
      }
      throw error.expected();
    }
  }

  @Override
  protected RemoteIterator<LocatedFileStatus> listLocatedStatus(Path path, PathFilter filter) throws IOException {
    RemoteIterator<FileStatus> entries = listStatusIterator(path);
    return new RemoteIterator<LocatedFileStatus>() {
      private FileStatus next;

      @Override
      public boolean hasNext() throws IOException {
        while (next == null && entries.hasNext()) {
          FileStatus entry = entries.next();
          next = filter.accept(entry.getPath()) ? entry : null;
        }
        return next != null;
      }

      @Override
      public LocatedFileStatus next() throws IOException {
        if (!hasNext()) {
          throw new java.util.NoSuchElementException("no more entries in " + path);
        }
        FileStatus entry = next;
        next = null;
        return new LocatedFileStatus(entry,
            entry.isFile() ? getFileBlockLocations(entry, 0, entry.getLen()) : null);
      }
    };
  }

  @Override
  public BlockLocation[] getFileBlockLocations(FileStatus file, long start, long length) throws IOException {
    if (file == null) {
      return null;
    }
    if (start < 0 || length < 0) {
      throw new IllegalArgumentException(file.getPath() + ": a start of " + start + " and a length of " + length);
    }
    if (!file.isFile() || file.getLen() <= start) {
      return new BlockLocation[0];
    }
    Reply reply = about(Call.LOCATE, file.getPath()).ask();
    List<BlockLocation> blocks = new ArrayList<>();
    for (int left = reply.integer(); left > 0; left--) {
      long from = reply.number();
      long bytes = reply.number();
      String[] addresses = new String[reply.integer()];
      String[] hosts = new String[addresses.length];
      for (int i = 0; i < addresses.length; i++) {
        addresses[i] = reply.text();
        hosts[i] = addresses[i].substring(0, addresses[i].lastIndexOf(':'));
      }
      // Without overflow, whatever length is asked for.
      if (from + bytes > start && from - start < length) {
        blocks.add(new BlockLocation(addresses, hosts, from, bytes));
      }
    }
    return blocks.toArray(new BlockLocation[0]);
  }

  @Override
  public boolean hasPathCapability(Path path, String capability) throws IOException {
    makeQualified(path);
    switch (capability.toLowerCase(java.util.Locale.ROOT)) {
      case CommonPathCapabilities.FS_ACLS:
      case CommonPathCapabilities.FS_APPEND:
      case CommonPathCapabilities.FS_CHECKSUMS:
      case CommonPathCapabilities.FS_CONCAT:
      case CommonPathCapabilities.FS_MULTIPART_UPLOADER:
      case CommonPathCapabilities.FS_PATHHANDLES:
      case CommonPathCapabilities.FS_PERMISSIONS:
      case CommonPathCapabilities.FS_TRUNCATE:
      case CommonPathCapabilities.FS_XATTRS:
      // A constant that Hadoop before 3.3.6 has not; its value is in this class.
      case CommonPathCapabilities.LEASE_RECOVERABLE:
        return true;
      default:
        return super.hasPathCapability(path, capability);
    }
  }
}
