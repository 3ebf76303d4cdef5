package io.curvine.context;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;

import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.util.Arrays;
import java.util.Collections;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.FutureTask;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.hadoop.fs.CreateFlag;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileContext;
import org.apache.hadoop.fs.MultipartUploader;
import org.apache.hadoop.fs.Options;
import org.apache.hadoop.fs.PartHandle;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.UploadHandle;
import org.apache.hadoop.fs.permission.AclEntry;
import org.junit.After;
import org.junit.Before;
import org.junit.Test;

/** What a FileContext has of a FileSystem beyond what Hadoop's base classes ask of it. */
public class ContextExtrasTest {
  private final Path directory = new Path("/context-extras");
  private FileContext fc;

  @Before
  public void setUp() throws Exception {
    fc = Contexts.make();
    fc.mkdir(directory, FileContext.DEFAULT_PERM, true);
  }

  @After
  public void tearDown() throws Exception {
    fc.delete(directory, true);
  }

  @Test
  public void extendedAttributesAreThoseOfTheFile() throws Exception {
    Path path = new Path(directory, "f");
    fc.create(path, EnumSet.of(CreateFlag.CREATE)).close();
    fc.setXAttr(path, "user.one", "1".getBytes(UTF_8));
    fc.setXAttr(path, "user.two", "2".getBytes(UTF_8));
    assertArrayEquals("1".getBytes(UTF_8), fc.getXAttr(path, "user.one"));
    assertEquals(2, fc.getXAttrs(path).size());
    assertEquals(1, fc.getXAttrs(path, Collections.singletonList("user.two")).size());
    fc.removeXAttr(path, "user.one");
    assertEquals(Collections.singletonList("user.two"), fc.listXAttrs(path));
  }

  @Test
  public void accessControlListsAreThoseOfTheFile() throws Exception {
    List<AclEntry> user = AclEntry.parseAclSpec("user:daemon:rw-", true);
    fc.modifyAclEntries(directory, AclEntry.parseAclSpec("default:user:daemon:rwx", true));
    Path path = new Path(directory, "f");
    fc.create(path, EnumSet.of(CreateFlag.CREATE)).close();
    // The mode of a file, without the umask of the context.
    assertEquals("rw-rw-r--", fc.getFileStatus(path).getPermission().toString());
    assertEquals("[user:daemon:rwx, group::r-x]", fc.getAclStatus(path).getEntries().toString());
    fc.removeDefaultAcl(directory);
    assertFalse(fc.getFileStatus(directory).hasAcl());
    fc.modifyAclEntries(path, user);
    assertEquals("[user:daemon:rw-, group::r-x]", fc.getAclStatus(path).getEntries().toString());
    fc.removeAclEntries(path, user);
    assertEquals("[group::r-x]", fc.getAclStatus(path).getEntries().toString());
    fc.removeAcl(path);
    assertFalse(fc.getFileStatus(path).hasAcl());
    fc.setAcl(path, AclEntry.parseAclSpec("user::rw-,group::---,other::---", true));
    assertEquals("rw-------", fc.getFileStatus(path).getPermission().toString());
  }

  @Test
  public void aFileIsReadThroughABuilderAndTruncated() throws Exception {
    Path path = new Path(directory, "f");
    try (FSDataOutputStream out = fc.create(path, EnumSet.of(CreateFlag.CREATE), Options.CreateOpts.blockSize(65_536))) {
      out.write(new byte[100]);
    }
    fc.truncate(path, 60);
    assertEquals(60, fc.openFile(path).build().get().read(new byte[100]));
    assertEquals(60, fc.getFileStatus(path).getLen());
    assertEquals(65_536, fc.getFileStatus(path).getBlockSize());
    assertEquals("COMPOSITE-CRC32C", fc.getFileChecksum(path).getAlgorithmName());
  }

  @Test
  public void whatIsReplacedByARenameIsThereAllTheTime() throws Exception {
    Path path = new Path(directory, "f");
    fc.create(path, EnumSet.of(CreateFlag.CREATE)).close();
    AtomicBoolean goesOn = new AtomicBoolean(true);
    FutureTask<Integer> missed = new FutureTask<>(() -> {
      int times = 0;
      while (goesOn.get()) {
        times += fc.util().exists(path) ? 0 : 1;
      }
      return times;
    });
    Thread reader = new Thread(missed);
    reader.start();
    for (int turn = 0; turn < 200; turn++) {
      Path next = new Path(directory, "next");
      fc.create(next, EnumSet.of(CreateFlag.CREATE)).close();
      fc.rename(next, path, Options.Rename.OVERWRITE);
    }
    goesOn.set(false);
    assertEquals(0, (int) missed.get());
  }

  @Test
  public void partsAreUploadedAndJoined() throws Exception {
    Path path = fc.makeQualified(new Path(directory, "whole"));
    try (MultipartUploader uploader = fc.createMultipartUploader(fc.makeQualified(directory)).build()) {
      UploadHandle upload = uploader.startUpload(path).get();
      Map<Integer, PartHandle> parts = new HashMap<>();
      for (int part = 2; part >= 1; part--) {
        byte[] bytes = new byte[70_000];
        Arrays.fill(bytes, (byte) part);
        InputStream in = new ByteArrayInputStream(bytes);
        parts.put(part, uploader.putPart(upload, part, path, in, bytes.length).get());
      }
      uploader.complete(upload, path, parts).get();
    }
    byte[] whole = new byte[140_000];
    try (FSDataInputStream in = fc.open(path)) {
      in.readFully(whole);
    }
    assertEquals(1, whole[69_999]);
    assertEquals(2, whole[70_000]);
    assertEquals(140_000, fc.getFileStatus(path).getLen());
  }
}
