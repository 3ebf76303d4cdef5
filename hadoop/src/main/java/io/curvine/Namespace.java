package io.curvine;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.net.URI;
import java.util.ArrayList;
import java.util.Collections;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.ContentSummary;
import org.apache.hadoop.fs.FileAlreadyExistsException;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.FsStatus;
import org.apache.hadoop.fs.Options;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.PathIsNotEmptyDirectoryException;
import org.apache.hadoop.fs.RemoteIterator;
import org.apache.hadoop.fs.XAttrSetFlag;
import org.apache.hadoop.fs.permission.AclEntry;
import org.apache.hadoop.fs.permission.AclStatus;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.fs.statistics.IOStatistics;
import org.apache.hadoop.fs.statistics.IOStatisticsSource;
import org.apache.hadoop.fs.statistics.StoreStatisticNames;
import org.apache.hadoop.fs.statistics.impl.IOStatisticsStore;
import org.apache.hadoop.security.UserGroupInformation;

/** The names of a cluster, what they lead to, and their attributes. What files hold is {@link CurvineFileSystem}'s. */
abstract class Namespace extends FileSystem implements IOStatisticsSource {
  static final String SCHEME = "cv";
  private static final int PAGE = 1000;
  static final int REPLICAS_MAX = 255;

  private URI uri;
  private Path home;
  private Path workingDirectory;
  private long connection;
  private boolean closed;
  final IOStatisticsStore counts = Counts.ofFileSystem();

  @Override
  public String getScheme() {
    return SCHEME;
  }

  @Override
  public void initialize(URI name, Configuration configuration) throws IOException {
    super.initialize(name, configuration);
    setConf(configuration);
    String authority = name.getAuthority();
    uri = URI.create(SCHEME + "://" + (authority == null ? "/" : authority));
    String user = UserGroupInformation.getCurrentUser().getShortUserName();
    home = new Path("/user/" + user).makeQualified(uri, null);
    workingDirectory = home;
    connection = Cluster.connect(name, configuration, user);
  }

  /** An operation begins that changes nothing. */
  final void reads(String operation) {
    statistics.incrementReadOps(1);
    counts.incrementCounter(operation);
  }

  /** An operation begins that changes something. */
  final void changes(String operation) {
    statistics.incrementWriteOps(1);
    counts.incrementCounter(operation);
  }

  @Override
  public IOStatistics getIOStatistics() {
    return counts;
  }

  /** A call about a path. */
  final Request about(Call call, Path path) {
    return new Request(call).number(connection).text(absolute(path));
  }

  final String absolute(Path path) {
    return makeQualified(path).toUri().getPath();
  }

  static <E extends IOException> E because(E expected, CurvineException error) {
    expected.initCause(error);
    return expected;
  }

  @Override
  public URI getUri() {
    return uri;
  }

  /** There is no default port, and no host to look up in a list of them. */
  @Override
  protected URI canonicalizeUri(URI other) {
    return other;
  }

  /** No delegation tokens. */
  @Override
  public String getCanonicalServiceName() {
    return null;
  }

  @Override
  public Path getHomeDirectory() {
    return home;
  }

  @Override
  public Path getWorkingDirectory() {
    return workingDirectory;
  }

  @Override
  public void setWorkingDirectory(Path directory) {
    Path absolute = makeQualified(directory);
    checkPath(absolute);
    workingDirectory = absolute;
  }

  @Override
  public boolean rename(Path from, Path to) throws IOException {
    changes(StoreStatisticNames.OP_RENAME);
    String source = absolute(from);
    String target = absolute(to);
    if (source.equals("/")) {
      return false;
    }
    if (source.equals(target)) {
      FileStatus there = statusIfAny(to);
      return there != null && there.isFile();
    }
    if (target.equals("/")) {
      return renameInto(from, to);
    }
    try {
      about(Call.RENAME, from).text(target).flag(false).make();
      return true;
    } catch (CurvineException error) {
      // Most targets are not there: whether this one is a directory, or a mount that the file is in, is asked only now.
      boolean mayBeThere = error.is("AlreadyExists") || error.is("CrossMount");
      return mayBeThere ? renameInto(from, to) : notRenamed(error);
    }
  }

  /** To the same name in what is there, if that is a directory. */
  private boolean renameInto(Path from, Path to) throws IOException {
    FileStatus there = statusIfAny(to);
    if (there != null && !there.isDirectory()) {
      return false;
    }
    Path target = there == null ? to : new Path(to, from.getName());
    try {
      about(Call.RENAME, from).text(absolute(target)).flag(false).make();
      return true;
    } catch (CurvineException error) {
      return notRenamed(error);
    }
  }

  private static boolean notRenamed(CurvineException error) throws IOException {
    if (error.is("NotFound") || error.is("AlreadyExists") || error.is("NotADirectory")
        || error.is("InvalidArgument")) {
      return false;
    }
    throw error.expected();
  }

  /** One atomic step, with and without {@code OVERWRITE}. */
  @Override
  public void rename(Path from, Path to, Options.Rename... options) throws IOException {
    changes(StoreStatisticNames.OP_RENAME);
    boolean overwrite = false;
    for (Options.Rename option : options) {
      overwrite |= option == Options.Rename.OVERWRITE;
    }
    String source = absolute(from);
    String target = absolute(to);
    if (source.equals(target)) {
      getFileStatus(from);
      throw new FileAlreadyExistsException(target + ": is what is to be renamed");
    }
    try {
      about(Call.RENAME, from).text(target).flag(overwrite).make();
    } catch (CurvineException error) {
      throw error.is("InvalidArgument") ? new IOException(error.getMessage(), error) : error.expected();
    }
  }

  @Override
  public boolean delete(Path path, boolean recursive) throws IOException {
    changes(StoreStatisticNames.OP_DELETE);
    if (absolute(path).equals("/")) {
      if (!recursive && listStatusBatch(path, null).getEntries().length > 0) {
        throw new PathIsNotEmptyDirectoryException("/");
      }
      // As HDFS: the root stays, and what is in it.
      return false;
    }
    try {
      about(Call.DELETE, path).flag(recursive).make();
      return true;
    } catch (CurvineException error) {
      if (error.is("NotFound") || error.is("NotADirectory")) {
        return false;
      }
      throw error.expected();
    }
  }

  @Override
  public boolean mkdirs(Path path, FsPermission permission) throws IOException {
    changes(StoreStatisticNames.OP_MKDIRS);
    FsPermission wanted = permission == null ? FsPermission.getDirDefault() : permission;
    int mode = wanted.applyUMask(FsPermission.getUMask(getConf())).toShort();
    about(Call.MAKE_DIR, path).integer(mode).flag(true).integer(unmasked(wanted)).ask();
    return true;
  }

  /** The mode before a umask was taken off: where a directory has default entries, they take the umask's place. */
  static int unmasked(FsPermission wanted) {
    FsPermission unmasked = wanted.getUnmasked();
    return (unmasked == null ? wanted : unmasked).toShort();
  }

  private FileStatus status(Path path, boolean follow) throws IOException {
    reads(StoreStatisticNames.OP_GET_FILE_STATUS);
    try {
      return CurvineFileStatus.read(about(Call.STAT, path).flag(follow).make(), makeQualified(path));
    } catch (CurvineException error) {
      // As HDFS: below a file there is nothing.
      throw error.is("NotADirectory") ? because(new FileNotFoundException(error.getMessage()), error) : error.expected();
    }
  }

  @Override
  public FileStatus getFileStatus(Path path) throws IOException {
    return status(path, true);
  }

  private FileStatus statusIfAny(Path path) throws IOException {
    try {
      return getFileStatus(path);
    } catch (FileNotFoundException absent) {
      return null;
    }
  }

  @Override
  public FileStatus[] listStatus(Path path) throws IOException {
    List<FileStatus> all = new ArrayList<>();
    RemoteIterator<FileStatus> entries = listStatusIterator(path);
    while (entries.hasNext()) {
      all.add(entries.next());
    }
    return all.toArray(new FileStatus[0]);
  }

  /** A page; the token is the last name of the page before. */
  @Override
  protected DirectoryEntries listStatusBatch(Path path, byte[] token) throws IOException {
    statistics.incrementLargeReadOps(1);
    counts.incrementCounter(StoreStatisticNames.OP_LIST_STATUS);
    Request list = about(Call.LIST, path).data(token == null ? new byte[0] : token).integer(PAGE);
    Reply page;
    try {
      page = list.make();
    } catch (CurvineException error) {
      if (!error.is("NotADirectory")) {
        throw error.expected();
      }
      // A file lists itself. What is below a file is not there, and this says so.
      return new DirectoryEntries(new FileStatus[] {getFileStatus(path)}, null, false);
    }
    boolean more = page.flag();
    FileStatus[] entries = new FileStatus[page.integer()];
    Path directory = makeQualified(path);
    byte[] last = null;
    for (int i = 0; i < entries.length; i++) {
      last = page.data();
      String name = new String(last, java.nio.charset.StandardCharsets.UTF_8);
      // A name may have a colon; a path made of it alone must not.
      entries[i] = CurvineFileStatus.read(page, new Path(directory, new Path(null, null, name)));
    }
    return new DirectoryEntries(entries, last, more && last != null);
  }

  @Override
  public ContentSummary getContentSummary(Path path) throws IOException {
    reads(StoreStatisticNames.OP_GET_CONTENT_SUMMARY);
    Reply reply = about(Call.SUMMARIZE, path).ask();
    long directories = reply.number();
    long files = reply.number();
    long bytes = reply.number();
    return new ContentSummary.Builder().directoryCount(directories).fileCount(files).length(bytes)
        .spaceConsumed(bytes).build();
  }

  @Override
  public FsStatus getStatus(Path path) throws IOException {
    Reply reply = about(Call.STAT_FS, path == null ? new Path("/") : path).ask();
    return new FsStatus(reply.number(), reply.number(), reply.number());
  }

  @Override
  public void setPermission(Path path, FsPermission permission) throws IOException {
    changes(StoreStatisticNames.OP_SET_PERMISSION);
    about(Call.SET_MODE, path).integer(permission.toShort()).ask();
  }

  /** As with HDFS, false for what is no file. What lacks is made, and what is too much goes, in the background. */
  @Override
  public boolean setReplication(Path path, short replication) throws IOException {
    statistics.incrementWriteOps(1);
    if (replication < 1) {
      throw new IOException(path + ": a file has one replica at least, not " + replication);
    }
    if (!getFileStatus(path).isFile()) {
      return false;
    }
    about(Call.SET_REPLICATION, path).integer(Math.min(replication, REPLICAS_MAX)).ask();
    return true;
  }

  @Override
  public void setOwner(Path path, String user, String group) throws IOException {
    changes(StoreStatisticNames.OP_SET_OWNER);
    try {
      about(Call.SET_OWNER, path).text(user).text(group).make();
    } catch (CurvineException error) {
      // A name that this machine does not know is no fault of the program.
      throw error.is("InvalidArgument") ? new IOException(error.getMessage(), error) : error.expected();
    }
  }

  @Override
  public void setTimes(Path path, long modified, long accessed) throws IOException {
    changes(StoreStatisticNames.OP_SET_TIMES);
    about(Call.SET_TIMES, path).number(modified).number(accessed).ask();
  }

  @Override
  public void setXAttr(Path path, String name, byte[] value, EnumSet<XAttrSetFlag> flags) throws IOException {
    statistics.incrementWriteOps(1);
    boolean create = flags.contains(XAttrSetFlag.CREATE);
    boolean replace = flags.contains(XAttrSetFlag.REPLACE);
    about(Call.SET_XATTR, path).text(name).data(value == null ? new byte[0] : value)
        .flag(create && !replace).flag(replace && !create).ask();
  }

  @Override
  public byte[] getXAttr(Path path, String name) throws IOException {
    reads(StoreStatisticNames.OP_XATTR_GET_NAMED);
    return about(Call.GET_XATTR, path).text(name).ask().data();
  }

  @Override
  public List<String> listXAttrs(Path path) throws IOException {
    reads(StoreStatisticNames.OP_XATTR_LIST);
    Reply reply = about(Call.LIST_XATTRS, path).ask();
    List<String> names = new ArrayList<>();
    for (int left = reply.integer(); left > 0; left--) {
      names.add(reply.text());
    }
    return names;
  }

  @Override
  public Map<String, byte[]> getXAttrs(Path path) throws IOException {
    return getXAttrs(path, listXAttrs(path));
  }

  @Override
  public Map<String, byte[]> getXAttrs(Path path, List<String> names) throws IOException {
    Map<String, byte[]> values = new HashMap<>();
    for (String name : names) {
      values.put(name, getXAttr(path, name));
    }
    return values;
  }

  @Override
  public void removeXAttr(Path path, String name) throws IOException {
    statistics.incrementWriteOps(1);
    about(Call.REMOVE_XATTR, path).text(name).ask();
  }

  @Override
  public AclStatus getAclStatus(Path path) throws IOException {
    statistics.incrementReadOps(1);
    return Acls.read(about(Call.GET_ACL, path).ask());
  }

  @Override
  public void setAcl(Path path, List<AclEntry> entries) throws IOException {
    changeAcl(path, Acls.SET, entries);
  }

  @Override
  public void modifyAclEntries(Path path, List<AclEntry> entries) throws IOException {
    changeAcl(path, Acls.MODIFY, entries);
  }

  @Override
  public void removeAclEntries(Path path, List<AclEntry> entries) throws IOException {
    changeAcl(path, Acls.REMOVE, entries);
  }

  @Override
  public void removeDefaultAcl(Path path) throws IOException {
    changeAcl(path, Acls.REMOVE_DEFAULT, Collections.emptyList());
  }

  @Override
  public void removeAcl(Path path) throws IOException {
    changeAcl(path, Acls.CLEAR, Collections.emptyList());
  }

  private void changeAcl(Path path, int how, List<AclEntry> entries) throws IOException {
    statistics.incrementWriteOps(1);
    Request change = about(Call.CHANGE_ACL, path).small(how).integer(entries.size());
    for (AclEntry entry : entries) {
      Acls.write(change, entry);
    }
    try {
      change.make();
    } catch (CurvineException error) {
      // As HDFS's AclException: a list that cannot be is no fault of the program.
      throw error.is("InvalidArgument") ? new IOException(error.getMessage(), error) : error.expected();
    }
  }

  @Override
  public boolean supportsSymlinks() {
    return true;
  }

  @Override
  public void createSymlink(Path target, Path link, boolean createParent) throws IOException {
    statistics.incrementWriteOps(1);
    if (createParent) {
      mkdirs(makeQualified(link).getParent());
    }
    if (target.toUri().getScheme() != null) {
      checkPath(target);
    }
    about(Call.SYMLINK, link).text(target.toUri().getPath()).ask();
  }

  @Override
  public FileStatus getFileLinkStatus(Path path) throws IOException {
    return status(path, false);
  }

  @Override
  public Path getLinkTarget(Path path) throws IOException {
    return getFileLinkStatus(path).getSymlink();
  }

  @Override
  public void close() throws IOException {
    synchronized (this) {
      if (closed) {
        return;
      }
      closed = true;
    }
    try {
      super.close();
    } finally {
      if (connection != 0) {
        new Request(Call.DISCONNECT).number(connection).ask();
      }
    }
  }
}
