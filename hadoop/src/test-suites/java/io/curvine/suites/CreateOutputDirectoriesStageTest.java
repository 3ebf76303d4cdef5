package io.curvine.suites;

import io.curvine.contract.CurvineContract;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.contract.AbstractFSContract;
import org.apache.hadoop.mapreduce.lib.output.committer.manifest.TestCreateOutputDirectoriesStage;

public class CreateOutputDirectoriesStageTest extends TestCreateOutputDirectoriesStage {
  @Override
  protected AbstractFSContract createContract(Configuration configuration) {
    return new CurvineContract(configuration);
  }
}
