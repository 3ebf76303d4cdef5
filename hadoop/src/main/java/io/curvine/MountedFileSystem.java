package io.curvine;

import java.io.IOException;
import java.net.URI;
import java.util.Collections;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.BlockLocation;
import org.apache.hadoop.fs.ContentSummary;
import org.apache.hadoop.fs.CreateFlag;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileChecksum;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.FsStatus;
import org.apache.hadoop.fs.FutureDataInputStreamBuilder;
import org.apache.hadoop.fs.Options;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.RemoteIterator;
import org.apache.hadoop.fs.XAttrSetFlag;
import org.apache.hadoop.fs.permission.AclEntry;
import org.apache.hadoop.fs.permission.AclStatus;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.util.Progressable;
import org.apache.hadoop.util.ReflectionUtils;

/**
 * The file system of another scheme, {@code fs.s3a.impl} for instance: what is mounted of the store is served by Curvine (the
 * cluster that {@code fs.cv.masters} names), and everything else by the class that is there for the scheme otherwise.
 */
public class MountedFileSystem extends FileSystem {
  private static final Map<String, String> ORIGINALS = originals();

  private final CurvineFileSystem curvine = new CurvineFileSystem();
  private URI uri;
  private Mounts mounts;
  /** Made when it is needed first. */
  private FileSystem original;
  private Path workingDirectory;

  private static Map<String, String> originals() {
    Map<String, String> classes = new HashMap<>();
    classes.put("s3a", "org.apache.hadoop.fs.s3a.S3AFileSystem");
    classes.put("hdfs", "org.apache.hadoop.hdfs.DistributedFileSystem");
    classes.put("oss", "org.apache.hadoop.fs.aliyun.oss.AliyunOSSFileSystem");
    classes.put("gs", "com.google.cloud.hadoop.fs.gcs.GoogleHadoopFileSystem");
    return Collections.unmodifiableMap(classes);
  }

  /** Where a path leads: which file system, and its name there. */
  private final class Place {
    final FileSystem fs;
    final Path path;
    private final Mounts.Mount mount;

    private Place(FileSystem fs, Path path, Mounts.Mount mount) {
      this.fs = fs;
      this.path = path;
      this.mount = mount;
    }

    /** A status from there, as it is to be seen here. */
    FileStatus seen(FileStatus status) {
      if (mount != null) {
        status.setPath(new Path(uri.getScheme(), uri.getAuthority(), mount.outside(status.getPath().toUri().getPath())));
      }
      return status;
    }
  }

  private Place place(Path path) throws IOException {
    Path absolute = makeQualified(path);
    checkPath(absolute);
    Mounts.Mount mount = mounts.of(absolute.toUri().getPath());
    return mount == null
        ? new Place(original(), absolute, null)
        : new Place(curvine, mount.inside(absolute.toUri().getPath()), mount);
  }

  private synchronized FileSystem original() throws IOException {
    if (original == null) {
      String key = Key.ORIGINAL.of(uri.getScheme());
      String name = getConf().getTrimmed(key, ORIGINALS.get(uri.getScheme()));
      if (name == null) {
        throw new IOException(uri + " is not mounted in Curvine, and no class is known for the scheme; name one with " + key);
      }
      Class<?> found = getConf().getClassByNameOrNull(name);
      if (found == null) {
        throw new IOException(uri + " is not mounted in Curvine, and its own class " + name
            + " is not there; put its jar on the class path, or name another class with " + key);
      }
      FileSystem made = (FileSystem) ReflectionUtils.newInstance(found, getConf());
      made.initialize(uri, getConf());
      original = made;
    }
    return original;
  }

  @Override
  public void initialize(URI name, Configuration configuration) throws IOException {
    super.initialize(name, configuration);
    setConf(configuration);
    uri = URI.create(name.getScheme() + "://" + (name.getAuthority() == null ? "/" : name.getAuthority()));
    curvine.initialize(URI.create("cv:///"), configuration);
    Reply reply = curvine.about(Call.MOUNTS, new Path("/")).ask();
    Map<String, String> all = new HashMap<>();
    for (int left = reply.integer(); left > 0; left--) {
      String path = reply.text();
      all.put(path, reply.text());
    }
    mounts = Mounts.of(uri, all);
    workingDirectory = new Path(curvine.getHomeDirectory().toUri().getPath()).makeQualified(uri, null);
  }

  @Override
  public String getScheme() {
    return uri.getScheme();
  }

  @Override
  public URI getUri() {
    return uri;
  }

  @Override
  protected URI canonicalizeUri(URI other) {
    return other;
  }

  @Override
  public String getCanonicalServiceName() {
    return null;
  }

  @Override
  public Path getHomeDirectory() {
    return new Path(curvine.getHomeDirectory().toUri().getPath()).makeQualified(uri, null);
  }

  @Override
  public Path getWorkingDirectory() {
    return workingDirectory;
  }

  @Override
  public void setWorkingDirectory(Path directory) {
    workingDirectory = makeQualified(directory);
  }

  @Override
  public FSDataInputStream open(Path path, int bufferSize) throws IOException {
    Place place = place(path);
    return place.fs.open(place.path, bufferSize);
  }

  @Override
  public FutureDataInputStreamBuilder openFile(Path path) throws IOException {
    Place place = place(path);
    return place.fs.openFile(place.path);
  }

  @Override
  public FSDataOutputStream create(Path path, FsPermission permission, boolean overwrite, int bufferSize,
      short replication, long blockSize, Progressable progress) throws IOException {
    Place place = place(path);
    return place.fs.create(place.path, permission, overwrite, bufferSize, replication, blockSize, progress);
  }

  @Override
  public FSDataOutputStream createNonRecursive(Path path, FsPermission permission, EnumSet<CreateFlag> flags,
      int bufferSize, short replication, long blockSize, Progressable progress) throws IOException {
    Place place = place(path);
    return place.fs.createNonRecursive(place.path, permission, flags, bufferSize, replication, blockSize, progress);
  }

  @Override
  public FSDataOutputStream append(Path path, int bufferSize, Progressable progress) throws IOException {
    Place place = place(path);
    return place.fs.append(place.path, bufferSize, progress);
  }

  @Override
  public boolean truncate(Path path, long length) throws IOException {
    Place place = place(path);
    return place.fs.truncate(place.path, length);
  }

  /** Into a mount or out of it, nothing can be renamed: it is copied and deleted by whoever wants that. */
  @Override
  public boolean rename(Path from, Path to) throws IOException {
    Place source = place(from);
    Place target = besideOf(source, from, to);
    return source.fs.rename(source.path, target.path);
  }

  /** In one step where it is in a mount, else as Hadoop does it for the class that it is handed to. */
  @Override
  @SuppressWarnings("deprecation")
  public void rename(Path from, Path to, Options.Rename... options) throws IOException {
    Place source = place(from);
    Place target = besideOf(source, from, to);
    if (source.fs == curvine) {
      curvine.rename(source.path, target.path, options);
    } else {
      super.rename(from, to, options);
    }
  }

  private Place besideOf(Place source, Path from, Path to) throws IOException {
    Place target = place(to);
    if (source.fs != target.fs) {
      throw new IOException(from + " cannot be renamed to " + to + ": only one of them is mounted in Curvine; copy it instead");
    }
    return target;
  }

  @Override
  public boolean delete(Path path, boolean recursive) throws IOException {
    Place place = place(path);
    return place.fs.delete(place.path, recursive);
  }

  @Override
  public boolean mkdirs(Path path, FsPermission permission) throws IOException {
    Place place = place(path);
    return place.fs.mkdirs(place.path, permission);
  }

  @Override
  public FileStatus getFileStatus(Path path) throws IOException {
    Place place = place(path);
    return place.seen(place.fs.getFileStatus(place.path));
  }

  @Override
  public FileStatus[] listStatus(Path path) throws IOException {
    Place place = place(path);
    FileStatus[] entries = place.fs.listStatus(place.path);
    for (FileStatus entry : entries) {
      place.seen(entry);
    }
    return entries;
  }

  @Override
  public RemoteIterator<FileStatus> listStatusIterator(Path path) throws IOException {
    Place place = place(path);
    RemoteIterator<FileStatus> entries = place.fs.listStatusIterator(place.path);
    return new RemoteIterator<FileStatus>() {
      @Override
      public boolean hasNext() throws IOException {
        return entries.hasNext();
      }

      @Override
      public FileStatus next() throws IOException {
        return place.seen(entries.next());
      }
    };
  }

  @Override
  public BlockLocation[] getFileBlockLocations(FileStatus file, long start, long length) throws IOException {
    if (file == null) {
      return null;
    }
    Place place = place(file.getPath());
    FileStatus there = new FileStatus(file);
    there.setPath(place.path);
    return place.fs.getFileBlockLocations(there, start, length);
  }

  @Override
  public ContentSummary getContentSummary(Path path) throws IOException {
    Place place = place(path);
    return place.fs.getContentSummary(place.path);
  }

  @Override
  public FileChecksum getFileChecksum(Path path, long length) throws IOException {
    Place place = place(path);
    return place.fs.getFileChecksum(place.path, length);
  }

  @Override
  public FsStatus getStatus(Path path) throws IOException {
    Place place = place(path == null ? new Path("/") : path);
    return place.fs.getStatus(place.path);
  }

  @Override
  public long getDefaultBlockSize(Path path) {
    return curvine.getDefaultBlockSize();
  }

  @Override
  public boolean hasPathCapability(Path path, String capability) throws IOException {
    Place place = place(path);
    return place.fs.hasPathCapability(place.path, capability);
  }

  @Override
  public void setPermission(Path path, FsPermission permission) throws IOException {
    Place place = place(path);
    place.fs.setPermission(place.path, permission);
  }

  @Override
  public void setOwner(Path path, String user, String group) throws IOException {
    Place place = place(path);
    place.fs.setOwner(place.path, user, group);
  }

  @Override
  public void setTimes(Path path, long modified, long accessed) throws IOException {
    Place place = place(path);
    place.fs.setTimes(place.path, modified, accessed);
  }

  @Override
  public void setXAttr(Path path, String name, byte[] value, EnumSet<XAttrSetFlag> flags) throws IOException {
    Place place = place(path);
    place.fs.setXAttr(place.path, name, value, flags);
  }

  @Override
  public byte[] getXAttr(Path path, String name) throws IOException {
    Place place = place(path);
    return place.fs.getXAttr(place.path, name);
  }

  @Override
  public Map<String, byte[]> getXAttrs(Path path) throws IOException {
    Place place = place(path);
    return place.fs.getXAttrs(place.path);
  }

  @Override
  public List<String> listXAttrs(Path path) throws IOException {
    Place place = place(path);
    return place.fs.listXAttrs(place.path);
  }

  @Override
  public AclStatus getAclStatus(Path path) throws IOException {
    Place place = place(path);
    return place.fs.getAclStatus(place.path);
  }

  @Override
  public void setAcl(Path path, List<AclEntry> entries) throws IOException {
    Place place = place(path);
    place.fs.setAcl(place.path, entries);
  }

  @Override
  public void modifyAclEntries(Path path, List<AclEntry> entries) throws IOException {
    Place place = place(path);
    place.fs.modifyAclEntries(place.path, entries);
  }

  @Override
  public void removeAclEntries(Path path, List<AclEntry> entries) throws IOException {
    Place place = place(path);
    place.fs.removeAclEntries(place.path, entries);
  }

  @Override
  public void removeDefaultAcl(Path path) throws IOException {
    Place place = place(path);
    place.fs.removeDefaultAcl(place.path);
  }

  @Override
  public void removeAcl(Path path) throws IOException {
    Place place = place(path);
    place.fs.removeAcl(place.path);
  }

  @Override
  public void close() throws IOException {
    try {
      super.close();
    } finally {
      curvine.close();
      synchronized (this) {
        if (original != null) {
          original.close();
        }
      }
    }
  }
}
