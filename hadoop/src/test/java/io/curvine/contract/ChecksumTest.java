package io.curvine.contract;

import static org.apache.hadoop.test.LambdaTestUtils.intercept;
import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.util.Arrays;
import java.util.Random;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileChecksum;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Options;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.util.CrcComposer;
import org.apache.hadoop.util.DataChecksum;
import org.junit.After;
import org.junit.Before;
import org.junit.Test;

/** The checksum of a file is that which Hadoop composes of its bytes, whatever its blocks are. */
public class ChecksumTest {
  private final Path directory = new Path("/checksums");
  private FileSystem fs;

  @Before
  public void setUp() throws IOException {
    fs = FileSystem.get(CurvineContract.cluster(), new Configuration());
    fs.mkdirs(directory);
  }

  @After
  public void tearDown() throws IOException {
    fs.delete(directory, true);
  }

  private Path write(String name, long blockBytes, byte[] bytes) throws IOException {
    Path path = new Path(directory, name);
    try (FSDataOutputStream out = fs.create(path, true, 4096, (short) 1, blockBytes)) {
      out.write(bytes);
    }
    return path;
  }

  /** As a DataNode and the client of HDFS compose it, of checksums of 512 bytes each. */
  private static byte[] composed(byte[] bytes) throws IOException {
    CrcComposer composer = CrcComposer.newCrcComposer(DataChecksum.Type.CRC32C, 512);
    DataChecksum chunk = DataChecksum.newDataChecksum(DataChecksum.Type.CRC32C, 512);
    for (int at = 0; at < bytes.length; at += 512) {
      int length = Math.min(512, bytes.length - at);
      chunk.reset();
      chunk.update(bytes, at, length);
      composer.update((int) chunk.getValue(), length);
    }
    return composer.digest();
  }

  @Test
  public void theChecksumIsThatOfHadoopWhateverTheBlocks() throws Exception {
    byte[] bytes = new byte[5_000_003];
    new Random(17).nextBytes(bytes);
    FileChecksum small = fs.getFileChecksum(write("small", 64 << 10, bytes));
    FileChecksum large = fs.getFileChecksum(write("large", 4 << 20, bytes));
    assertEquals(small, large);
    assertArrayEquals(composed(bytes), small.getBytes());
    assertEquals("COMPOSITE-CRC32C", small.getAlgorithmName());
    Options.ChecksumOpt options = small.getChecksumOpt();
    assertEquals(DataChecksum.Type.CRC32C, options.getChecksumType());
    assertEquals(512, options.getBytesPerChecksum());
    for (int length : new int[] {1, 65_536, 4_194_305, bytes.length}) {
      FileChecksum part = fs.getFileChecksum(new Path(directory, "small"), length);
      assertArrayEquals(length + " bytes", composed(Arrays.copyOf(bytes, length)), part.getBytes());
    }
    // Of nothing, Hadoop composes nothing; the CRC of no byte is 0.
    assertArrayEquals(new byte[4], fs.getFileChecksum(new Path(directory, "small"), 0).getBytes());
  }

  @Test
  public void theChecksumOfJoinedFilesIsThatOfTheirBytes() throws Exception {
    byte[] bytes = new byte[300_000];
    new Random(18).nextBytes(bytes);
    Path first = write("first", 64 << 10, Arrays.copyOf(bytes, 100_000));
    Path second = write("second", 64 << 10, Arrays.copyOfRange(bytes, 100_000, bytes.length));
    fs.concat(first, new Path[] {second});
    assertArrayEquals(composed(bytes), fs.getFileChecksum(first).getBytes());
  }

  @Test
  public void whatIsNoFileHasNone() throws Exception {
    intercept(FileNotFoundException.class, "/checksums", () -> fs.getFileChecksum(directory));
    intercept(FileNotFoundException.class, "/none", () -> fs.getFileChecksum(new Path("/none")));
    intercept(IllegalArgumentException.class, "-1", () -> fs.getFileChecksum(directory, -1));
  }
}
