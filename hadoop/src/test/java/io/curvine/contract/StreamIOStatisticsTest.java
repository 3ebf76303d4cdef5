package io.curvine.contract;

import static org.apache.hadoop.fs.contract.ContractTestUtils.createFile;
import static org.apache.hadoop.fs.contract.ContractTestUtils.readDataset;
import static org.apache.hadoop.fs.statistics.IOStatisticAssertions.verifyStatisticCounterValue;

import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.contract.AbstractContractStreamIOStatisticsTest;
import org.apache.hadoop.fs.contract.AbstractFSContract;
import org.apache.hadoop.fs.statistics.IOStatistics;
import org.apache.hadoop.fs.statistics.IOStatisticsContext;
import org.apache.hadoop.fs.statistics.IOStatisticsSupport;
import org.apache.hadoop.fs.statistics.StoreStatisticNames;
import org.apache.hadoop.fs.statistics.StreamStatisticNames;
import org.junit.Test;

public class StreamIOStatisticsTest extends AbstractContractStreamIOStatisticsTest {
  @Override
  protected AbstractFSContract createContract(Configuration configuration) {
    return new CurvineContract(configuration);
  }

  @Test
  public void testFileSystemAndThreadGatherWhatStreamsHaveCounted() throws Exception {
    IOStatisticsContext thread = IOStatisticsContext.getCurrentIOStatisticsContext();
    thread.reset();
    try (FileSystem fs = FileSystem.newInstance(CurvineContract.cluster(), new Configuration())) {
      Path path = methodPath();
      createFile(fs, path, true, new byte[1000]);
      readDataset(fs, path, 1000);
      try (FSDataInputStream in = fs.open(path)) {
        in.seek(990);
        in.read(new byte[100]);
      }
      fs.delete(path, false);
      IOStatistics counts = IOStatisticsSupport.retrieveIOStatistics(fs);
      verifyStatisticCounterValue(counts, StoreStatisticNames.OP_CREATE, 1);
      verifyStatisticCounterValue(counts, StoreStatisticNames.OP_OPEN, 2);
      verifyStatisticCounterValue(counts, StoreStatisticNames.OP_DELETE, 1);
      verifyStatisticCounterValue(counts, StreamStatisticNames.STREAM_WRITE_BYTES, 1000);
      verifyStatisticCounterValue(counts, StreamStatisticNames.STREAM_READ_BYTES, 1010);
      verifyStatisticCounterValue(counts, StreamStatisticNames.STREAM_READ_SEEK_OPERATIONS, 1);
      verifyStatisticCounterValue(thread.getIOStatistics(), StreamStatisticNames.STREAM_READ_BYTES, 1010);
    }
  }
}
