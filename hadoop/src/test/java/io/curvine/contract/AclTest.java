package io.curvine.contract;

import static org.apache.hadoop.fs.permission.AclEntryScope.ACCESS;
import static org.apache.hadoop.fs.permission.AclEntryScope.DEFAULT;
import static org.apache.hadoop.fs.permission.AclEntryType.GROUP;
import static org.apache.hadoop.fs.permission.AclEntryType.MASK;
import static org.apache.hadoop.fs.permission.AclEntryType.OTHER;
import static org.apache.hadoop.fs.permission.AclEntryType.USER;
import static org.apache.hadoop.fs.permission.FsAction.ALL;
import static org.apache.hadoop.fs.permission.FsAction.NONE;
import static org.apache.hadoop.fs.permission.FsAction.READ;
import static org.apache.hadoop.fs.permission.FsAction.READ_EXECUTE;
import static org.apache.hadoop.fs.permission.FsAction.READ_WRITE;
import static org.apache.hadoop.test.LambdaTestUtils.intercept;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.CommonPathCapabilities;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.permission.AclEntry;
import org.apache.hadoop.fs.permission.AclEntryScope;
import org.apache.hadoop.fs.permission.AclEntryType;
import org.apache.hadoop.fs.permission.AclStatus;
import org.apache.hadoop.fs.permission.FsAction;
import org.apache.hadoop.fs.permission.FsPermission;
import org.junit.After;
import org.junit.Before;
import org.junit.Test;

/** Access control lists do what HDFS's tests of them expect (FSAclBaseTest there), but for what refuses a user something. */
public class AclTest {
  private final Path directory = new Path("/acls");
  private final Path file = new Path(directory, "f");
  private FileSystem fs;

  @Before
  public void setUp() throws IOException {
    Configuration configuration = new Configuration();
    configuration.set("fs.permissions.umask-mode", "022");
    fs = FileSystem.newInstance(CurvineContract.cluster(), configuration);
    make(directory, 0750);
  }

  @After
  public void tearDown() throws IOException {
    fs.delete(directory, true);
    fs.close();
  }

  private void make(Path path, int mode) throws IOException {
    fs.mkdirs(path);
    fs.setPermission(path, new FsPermission((short) mode));
  }

  private void create(int mode) throws IOException {
    fs.create(file).close();
    fs.setPermission(file, new FsPermission((short) mode));
  }

  private static AclEntry entry(AclEntryScope scope, AclEntryType type, String name, FsAction permission) {
    return new AclEntry.Builder().setScope(scope).setType(type).setName(name).setPermission(permission).build();
  }

  private static AclEntry entry(AclEntryScope scope, AclEntryType type, FsAction permission) {
    return entry(scope, type, null, permission);
  }

  private void assertAcl(Path path, int mode, AclEntry... expected) throws IOException {
    AclStatus status = fs.getAclStatus(path);
    assertEquals(Arrays.asList(expected), status.getEntries());
    assertEquals(mode, fs.getFileStatus(path).getPermission().toShort());
    assertEquals(fs.getFileStatus(path).getPermission(), status.getPermission());
    assertEquals(expected.length > 0, fs.getFileStatus(path).hasAcl());
    assertEquals(fs.getFileStatus(path).getOwner(), status.getOwner());
    assertEquals(fs.getFileStatus(path).getGroup(), status.getGroup());
    assertEquals((mode & 01000) != 0, status.isStickyBit());
  }

  @Test
  public void entriesAreAddedAndReplaced() throws Exception {
    assertTrue(fs.hasPathCapability(directory, CommonPathCapabilities.FS_ACLS));
    fs.setAcl(directory, Arrays.asList(
        entry(ACCESS, USER, ALL), entry(ACCESS, USER, "daemon", ALL), entry(ACCESS, GROUP, READ_EXECUTE),
        entry(ACCESS, OTHER, NONE), entry(DEFAULT, USER, "daemon", ALL)));
    fs.modifyAclEntries(directory, Arrays.asList(
        entry(ACCESS, USER, "daemon", READ_EXECUTE), entry(DEFAULT, USER, "daemon", READ_EXECUTE)));
    assertAcl(directory, 0750,
        entry(ACCESS, USER, "daemon", READ_EXECUTE), entry(ACCESS, GROUP, READ_EXECUTE),
        entry(DEFAULT, USER, ALL), entry(DEFAULT, USER, "daemon", READ_EXECUTE), entry(DEFAULT, GROUP, READ_EXECUTE),
        entry(DEFAULT, MASK, READ_EXECUTE), entry(DEFAULT, OTHER, NONE));
  }

  @Test
  public void aMaskIsAsGivenOrWhatItMustBe() throws Exception {
    create(0640);
    fs.modifyAclEntries(file, Arrays.asList(entry(ACCESS, USER, "daemon", ALL), entry(ACCESS, MASK, NONE)));
    assertAcl(file, 0600, entry(ACCESS, USER, "daemon", ALL), entry(ACCESS, GROUP, READ));
    fs.modifyAclEntries(file, Collections.singletonList(entry(ACCESS, GROUP, "bin", READ_WRITE)));
    assertAcl(file, 0670,
        entry(ACCESS, USER, "daemon", ALL), entry(ACCESS, GROUP, READ), entry(ACCESS, GROUP, "bin", READ_WRITE));
    fs.removeAclEntries(file, Collections.singletonList(entry(ACCESS, USER, "daemon", null)));
    assertAcl(file, 0660, entry(ACCESS, GROUP, READ), entry(ACCESS, GROUP, "bin", READ_WRITE));
  }

  @Test
  public void entriesAreSortedByTheirNames() throws Exception {
    create(0640);
    fs.modifyAclEntries(file, Arrays.asList(
        entry(ACCESS, USER, "sys", READ), entry(ACCESS, USER, "daemon", READ), entry(ACCESS, USER, "bin", READ)));
    List<String> names = new ArrayList<>();
    for (AclEntry entry : fs.getAclStatus(file).getEntries()) {
      names.add(entry.getName());
    }
    assertEquals(Arrays.asList("bin", "daemon", "sys", null), names);
  }

  @Test
  public void whatIsRemovedIsGone() throws Exception {
    fs.setPermission(directory, new FsPermission((short) 01750));
    fs.modifyAclEntries(directory, Arrays.asList(
        entry(ACCESS, USER, "daemon", ALL), entry(DEFAULT, USER, "daemon", ALL)));
    fs.removeDefaultAcl(directory);
    assertAcl(directory, 01770, entry(ACCESS, USER, "daemon", ALL), entry(ACCESS, GROUP, READ_EXECUTE));
    fs.removeAcl(directory);
    assertAcl(directory, 01750);
    fs.removeAcl(directory);
    assertAcl(directory, 01750);
    fs.setAcl(directory, Arrays.asList(
        entry(ACCESS, USER, READ_WRITE), entry(ACCESS, GROUP, READ), entry(ACCESS, OTHER, NONE)));
    assertAcl(directory, 01640);
  }

  @Test
  public void chmodChangesTheMask() throws Exception {
    create(0640);
    fs.modifyAclEntries(file, Collections.singletonList(entry(ACCESS, USER, "daemon", ALL)));
    fs.setPermission(file, new FsPermission((short) 0600));
    assertAcl(file, 0600, entry(ACCESS, USER, "daemon", ALL), entry(ACCESS, GROUP, READ));
    assertEquals(NONE, fs.getAclStatus(file).getEffectivePermission(entry(ACCESS, USER, "daemon", ALL)));
    fs.rename(file, new Path(directory, "g"));
    assertAcl(new Path(directory, "g"), 0600, entry(ACCESS, USER, "daemon", ALL), entry(ACCESS, GROUP, READ));
  }

  @Test
  public void whatIsMadeInADirectoryInheritsItsDefaultEntries() throws Exception {
    fs.setAcl(directory, Collections.singletonList(entry(DEFAULT, USER, "daemon", ALL)));
    fs.create(file).close();
    // Not the umask, but the mode of files alone limits it.
    assertAcl(file, 0660, entry(ACCESS, USER, "daemon", ALL), entry(ACCESS, GROUP, READ_EXECUTE));
    AclEntry[] inherited = {
      entry(ACCESS, USER, "daemon", ALL), entry(ACCESS, GROUP, READ_EXECUTE),
      entry(DEFAULT, USER, ALL), entry(DEFAULT, USER, "daemon", ALL), entry(DEFAULT, GROUP, READ_EXECUTE),
      entry(DEFAULT, MASK, ALL), entry(DEFAULT, OTHER, NONE),
    };
    Path below = new Path(directory, "a/b");
    fs.mkdirs(below);
    assertAcl(below, 0770, inherited);
    assertAcl(below.getParent(), 0770, inherited);
    fs.mkdirs(new Path(directory, "c"), new FsPermission((short) 0740));
    assertAcl(new Path(directory, "c"), 0740, inherited);
    Path way = new Path(directory, "d/e");
    fs.create(way).close();
    assertAcl(way.getParent(), 0770, inherited);
    assertAcl(way, 0660, entry(ACCESS, USER, "daemon", ALL), entry(ACCESS, GROUP, READ_EXECUTE));
  }

  @Test
  public void aDefaultListWithoutNamesIsInheritedAsAMode() throws Exception {
    fs.setAcl(directory, Arrays.asList(
        entry(DEFAULT, USER, ALL), entry(DEFAULT, GROUP, READ), entry(DEFAULT, OTHER, NONE)));
    fs.create(file).close();
    assertAcl(file, 0640);
    Path below = new Path(directory, "a");
    fs.mkdirs(below);
    assertAcl(below, 0740,
        entry(DEFAULT, USER, ALL), entry(DEFAULT, GROUP, READ), entry(DEFAULT, OTHER, NONE));
  }

  @Test
  public void whatIsNoListIsRefused() throws Exception {
    create(0640);
    intercept(IOException.class, "only directories may have default entries",
        () -> fs.modifyAclEntries(file, Collections.singletonList(entry(DEFAULT, USER, "daemon", ALL))));
    intercept(IOException.class, "owner, group and others are required",
        () -> fs.setAcl(file, Collections.singletonList(entry(ACCESS, USER, "daemon", ALL))));
    intercept(IOException.class, "about the same",
        () -> fs.modifyAclEntries(file, Arrays.asList(
            entry(ACCESS, USER, "daemon", ALL), entry(ACCESS, USER, "daemon", READ))));
    List<AclEntry> many = new ArrayList<>();
    for (int user = 1; user <= 33; user++) {
      many.add(entry(ACCESS, USER, Integer.toString(70_000 + user), ALL));
    }
    intercept(IOException.class, "at most 32", () -> fs.modifyAclEntries(file, many));
    fs.modifyAclEntries(file, many.subList(0, 28));
    intercept(IOException.class, "a mask is required",
        () -> fs.removeAclEntries(file, Collections.singletonList(entry(ACCESS, MASK, null))));
    intercept(IOException.class, "no-such-user",
        () -> fs.modifyAclEntries(file, Collections.singletonList(entry(ACCESS, USER, "no-such-user", ALL))));
    intercept(FileNotFoundException.class, "/none", () -> fs.getAclStatus(new Path("/none")));
    intercept(FileNotFoundException.class, "/none", () -> fs.removeAcl(new Path("/none")));
    assertEquals(29, fs.getAclStatus(file).getEntries().size());
    assertFalse(fs.getFileStatus(directory).hasAcl());
  }

  @Test
  public void listingsSayWhatHasAList() throws Exception {
    create(0640);
    fs.modifyAclEntries(file, Collections.singletonList(entry(ACCESS, USER, "daemon", READ)));
    make(new Path(directory, "plain"), 0755);
    assertTrue(fs.listStatus(directory)[0].hasAcl());
    assertFalse(fs.listStatus(directory)[1].hasAcl());
  }
}
