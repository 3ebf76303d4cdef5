package io.curvine;

import static org.junit.Assert.assertEquals;

import io.curvine.contract.CurvineContract;
import java.security.PrivilegedExceptionAction;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.security.UserGroupInformation;
import org.junit.Test;

/** Several users in one process, as services have them that act for others. */
public class UsersTest {
  @Test
  public void whatAProxyUserMakesIsTheirs() throws Exception {
    UserGroupInformation self = UserGroupInformation.getLoginUser();
    UserGroupInformation other = UserGroupInformation.createProxyUser("daemon", self);
    String file = "/users-test";
    try (FileSystem fs = FileSystem.newInstance(CurvineContract.cluster(), new Configuration())) {
      other.doAs((PrivilegedExceptionAction<Void>) () -> {
        try (FileSystem theirs = FileSystem.newInstance(CurvineContract.cluster(), new Configuration())) {
          theirs.create(new Path(file)).close();
          assertEquals("/user/daemon", theirs.getHomeDirectory().toUri().getPath());
        }
        return null;
      });
      assertEquals("daemon", fs.getFileStatus(new Path(file)).getOwner());
      // Who made the process keeps a client of their own.
      fs.create(new Path(file + "-of-self")).close();
      assertEquals(self.getShortUserName(), fs.getFileStatus(new Path(file + "-of-self")).getOwner());
      fs.delete(new Path(file), false);
      fs.delete(new Path(file + "-of-self"), false);
    }
  }
}
